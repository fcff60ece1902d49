"""HiDream-I1 as a family: Cai et al. (2025), https://arxiv.org/abs/2505.22705, HiDreamImagePipeline in diffusers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import transformer_facts
from toolkit.models.flow import linear_mu, steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers, masked_tokens, rows

BLOCKS = r"(double_stream_blocks|single_stream_blocks)\..*"
TEXT_LENGTH = 128


class HiDreamFamily:
    """The verbs of HiDream-I1. Four text encoders; of Llama every layer is read, each by other blocks.

    Its experts learn in training mode only: in evaluation mode the network's mixture lets no gradient through.
    """

    pipeline: ClassVar[str] = "HiDreamImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": (
            *("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"),
            *("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4"),
        ),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        transformer = parts.source.config("transformer")
        self._max_tokens = math.prod(transformer["max_resolution"]) // transformer["patch_size"] ** 2
        self.facts = transformer_facts(parts.source, "hidream_i1", BLOCKS, text_length=TEXT_LENGTH)

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_scaled(self.parts["vae"], pixels)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_scaled(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `pooled` [P] (two CLIPs), `text` [L, D] (T5) and `llama` [N, L, D] (its layers), padded."""
        self.parts["tokenizer_4"].pad_token = self.parts["tokenizer_4"].eos_token
        ids = [self._tokens(number, texts) for number in ("", "_2", "_3", "_4")]
        clips = [self.parts["text_encoder"], self.parts["text_encoder_2"]]
        # the CLIPs see their padding
        pooled = [clip(tokens).text_embeds for clip, (tokens, _) in zip(clips, ids, strict=False)]
        (t5_ids, t5_mask), (llama_ids, llama_mask) = ids[2:]
        text = self.parts["text_encoder_3"](t5_ids, attention_mask=t5_mask).last_hidden_state
        layers = range(1, self.parts["text_encoder_4"].config.num_hidden_layers + 1)
        llama = hidden_layers(self.parts["text_encoder_4"], llama_ids, llama_mask, tuple(layers))
        return list(rows(pooled=torch.cat(pooled, dim=-1), text=text, llama=torch.stack(llama, dim=1)))

    def _tokens(self, number: str, texts: list[str]) -> tuple[Tensor, Tensor]:
        tokenizer, encoder = self.parts[f"tokenizer{number}"], self.parts[f"text_encoder{number}"]
        return masked_tokens(tokenizer, texts, min(TEXT_LENGTH, tokenizer.model_max_length), encoder.device)

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """HiDream-I1 has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        h, w = noisy.shape[-2:]
        answer = self.denoiser(
            hidden_states=noisy,
            timesteps=steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states_t5=cond["text"],
            encoder_hidden_states_llama3=cond["llama"].transpose(0, 1),
            pooled_embeds=cond["pooled"],
            return_dict=False,
        )[0]
        if self.denoiser.training:
            # tokens of patches, and padding behind them where the picture is not square
            patches = answer[:, :, : h * w // 4]
            answer = rearrange(patches, "b c (h w) (p q) -> b c (h p) (w q)", h=h // 2, p=2, q=2)
        return -answer

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own spacing; a shift by size goes by the largest number of tokens, whatever the size."""
        arguments: dict[str, Any] = {"num_inference_steps": steps}
        if self.facts.scheduler.get("use_dynamic_shifting"):
            arguments["mu"] = linear_mu(self._max_tokens, {})
        return arguments

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
