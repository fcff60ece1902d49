"""Small functions on texts that several families share."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def tokenize(tokenizer: Any, texts: list[str], length: int, device: Any) -> Tensor:
    """Token ids [B, length], padded and truncated at the end."""
    ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return ids.to(device)


def rows(**tensors: Tensor) -> list[dict[str, Tensor]]:
    """Tensors [B, ...] -> one row {name: tensor} per sample, each with memory of its own."""
    count = len(next(iter(tensors.values())))
    return [{name: tensor[i].clone() for name, tensor in tensors.items()} for i in range(count)]
