"""How the two text encoders of FLUX.2 read a prompt: the chat around it, and the layers whose states are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import Tensor

from toolkit.models.text import chat_text, hidden_layers


@dataclass(frozen=True)
class TextEncoding:
    """One of them."""

    pipeline: str
    """Name of the diffusers pipeline."""
    layers: tuple[int, int, int]
    """Their hidden states, one after another, are what the transformer reads of a token."""
    chat: Callable[[Any, str], str]
    """(tokenizer, prompt) -> the text that is tokenized."""


def mistral_chat(tokenizer: Any, prompt: str) -> str:
    """FLUX.2's system message and the prompt, as content parts; a literal [IMG] would stand for a picture."""
    contents = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
    messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in contents.items()]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)


def qwen3_chat(tokenizer: Any, prompt: str) -> str:
    """The prompt as a question that is answered without thinking."""
    return chat_text(tokenizer, prompt, thinking=False)


MISTRAL = TextEncoding("Flux2Pipeline", (10, 20, 30), mistral_chat)
QWEN3 = TextEncoding("Flux2KleinPipeline", (9, 18, 27), qwen3_chat)


def encode_texts(encoding: TextEncoding, tokenizer: Any, encoder: Any, texts: list[str], length: int) -> list[Tensor]:
    """[B, L, D] of each layer; pads are part of the answer, because the transformer attends to them."""
    chats = [encoding.chat(tokenizer, text) for text in texts]
    # the chat template has written the special tokens
    found = tokenizer(
        chats,
        padding="max_length",
        truncation=True,
        max_length=length,
        add_special_tokens=False,
        return_tensors="pt",
    )
    device = encoder.device
    return hidden_layers(encoder, found.input_ids.to(device), found.attention_mask.to(device), encoding.layers)
