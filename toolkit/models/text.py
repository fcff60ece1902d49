"""Small functions on texts that several families share."""

from __future__ import annotations

import re
from itertools import count as count_from
from typing import Any

from torch import Tensor


def tokenize(tokenizer: Any, texts: list[str], length: int, device: Any) -> Tensor:
    """Token ids [B, length], padded and truncated at the end; words of an embedding are all of their tokens."""
    spelled = spell_words(tokenizer, texts)
    ids = tokenizer(spelled, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return ids.to(device)


def word_tokens(word: str, count: int) -> list[str]:
    """The tokens of a word that an embedding adds to a tokenizer: `word`, `word_1`, `word_2` ..."""
    return [word, *(f"{word}_{number}" for number in range(1, count))]


def spell_words(tokenizer: Any, texts: list[str]) -> list[str]:
    """`texts` with all tokens of each added word that has several, as the pipelines of diffusers spell them."""
    added = tokenizer.added_tokens_encoder
    for word in [word for word in added if f"{word}_1" in added]:
        count = next(number for number in count_from(1) if f"{word}_{number}" not in added)
        # what is spelled out already stays as it is
        pieces = [re.split(rf"{re.escape(word)}(?!_\d)", text) for text in texts]
        texts = [" ".join(word_tokens(word, count)).join(between) for between in pieces]
    return texts


def masked_tokens(
    tokenizer: Any, texts: list[str], length: int, device: Any, padding: str = "max_length"
) -> tuple[Tensor, Tensor]:
    """(token ids, attention mask), both [B, L], truncated to `length`; `padding` is "max_length" or "longest"."""
    found = tokenizer(texts, padding=padding, max_length=length, truncation=True, return_tensors="pt")
    return found.input_ids.to(device), found.attention_mask.to(device)


def chat_text(tokenizer: Any, text: str, thinking: bool | None = None, system: str | None = None) -> str:
    """The text as a user's message in the tokenizer's chat template, up to where the assistant would answer.

    `thinking` is passed on to templates that know it; None: not at all.
    """
    messages = [{"role": "system", "content": system}] if system else []
    options = {} if thinking is None else {"enable_thinking": thinking}
    messages.append({"role": "user", "content": text})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)


def hidden_layers(encoder: Any, ids: Tensor, mask: Tensor, layers: tuple[int, ...]) -> list[Tensor]:
    """The hidden states [B, L, D] of some layers of a language model; 0 is the embedding, -1 the last."""
    states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    return [states[layer] for layer in layers]


def trim(hidden: Tensor, mask: Tensor) -> list[Tensor]:
    """Hidden states [B, L, D] -> [l, D] per text: the tokens where `mask` [B, L] is true, in memory of their own."""
    return [row[keep].clone() for row, keep in zip(hidden, mask.bool(), strict=True)]


def rows(**tensors: Tensor) -> list[dict[str, Tensor]]:
    """Tensors [B, ...] -> one row {name: tensor} per sample, each with memory of its own."""
    count = len(next(iter(tensors.values())))
    return [{name: tensor[i].clone() for name, tensor in tensors.items()} for i in range(count)]
