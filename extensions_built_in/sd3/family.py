"""Stable Diffusion 3 and 3.5 as a family: Esser et al. (2024), StableDiffusion3Pipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.flow import linear_mu, steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import rows, tokenize

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
T5_LENGTH = 256


class Sd3Family:
    """The verbs of Stable Diffusion 3.

    Latents [B, 16, H/8, W/8]. Text: the hidden states of both CLIPs side by side, as wide as T5's, then T5's, padding
    included, because the network attends to it; both pooled vectors. A checkpoint may come without T5: zeros then.
    """

    pipeline: ClassVar[str] = "StableDiffusion3Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": (*TOKENIZERS, *ENCODERS),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._clip_length = text_length(parts.source, "tokenizer", 77)
        has_t5 = parts.source.has("tokenizer_3")
        self._t5_length = text_length(parts.source, "tokenizer_3", T5_LENGTH) if has_t5 else T5_LENGTH
        self._network = parts.source.config("transformer")
        # the last block's text is dropped, and so is what would have asked for it
        last = self._network.get("num_layers", 18) - 1
        blocks = rf"transformer_blocks\.(?!{last}\.attn\.add_q_proj$).*"
        self.facts = transformer_facts(parts.source, "sd_3", blocks, cells=4, text_length=self._t5_length)

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
        """Rows of `text` [L, D] (both CLIPs, then T5, padded) and `pooled` [P1 + P2]."""
        states, pooled = [], []
        for name, tokenizer in zip(ENCODERS[:2], TOKENIZERS[:2], strict=True):
            clip = self.parts[name]
            ids = tokenize(self.parts[tokenizer], texts, self._clip_length, clip.device)
            answer = clip(ids, output_hidden_states=True)
            states.append(answer.hidden_states[-2])
            pooled.append(answer[0])
        clips = torch.cat(states, dim=-1)
        t5 = self._encode_t5(texts, clips)
        clips = torch.nn.functional.pad(clips, (0, t5.shape[-1] - clips.shape[-1]))
        return list(rows(text=torch.cat([clips, t5.to(clips)], dim=1), pooled=torch.cat(pooled, dim=-1)))

    def _encode_t5(self, texts: list[str], like: Tensor) -> Tensor:
        t5 = self.parts["text_encoder_3"]
        if t5 is None:
            return like.new_zeros(len(texts), self._t5_length, self._network.get("joint_attention_dim", 4096))
        return t5(tokenize(self.parts["tokenizer_3"], texts, self._t5_length, t5.device))[0]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """There are no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        return self.denoiser(
            hidden_states=noisy,
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states=cond["text"],
            pooled_projections=cond["pooled"],
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own steps, shifted by the number of 2x2 tokens if it asks for that."""
        arguments: dict[str, Any] = {"num_inference_steps": steps}
        if self.facts.scheduler.get("use_dynamic_shifting"):
            arguments["mu"] = linear_mu(shape[-2] * shape[-1] // 4, self.facts.scheduler)
        return arguments

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
