"""FLUX.1 (dev and schnell) as a family: https://github.com/black-forest-labs/flux, FluxPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from diffusers.models.embeddings import CombinedTimestepGuidanceTextProjEmbeddings
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps
from toolkit.models.latents import grid_ids, mode, pack, scale_shift, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import rows, tokenize

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"


class FluxFamily:
    """The verbs of FLUX.1.

    Latents [B, 16, H/8, W/8] are packed into 2x2 tokens. Text: all T5 tokens, padding included, because the network
    attends to it, and CLIP's pooled vector. The guidance scale is an input of guidance-distilled checkpoints (dev).
    """

    pipeline: ClassVar[str] = "FluxPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts, bypass_guidance: bool = False) -> None:
        self.parts = parts
        self.bypass_guidance = bypass_guidance
        self._text_length = min(512, int(parts.source.config("tokenizer_2").get("model_max_length", 512)))
        self._pooled_length = min(77, int(parts.source.config("tokenizer").get("model_max_length", 77)))
        self._takes_guidance = bool(parts.source.config("transformer")["guidance_embeds"])
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = 2 ** (len(vae["block_out_channels"]) - 1)
        return Facts(
            channels=vae["latent_channels"],
            stride=stride,
            multiple=stride * 4,
            base_model="flux.1",
            guidance="embedded",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("denoiser", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        vae = self.parts["vae"]
        scale, shift = scale_shift(vae)
        return (mode(vae.encode(pixels.to(vae.device, vae.dtype))).float() - shift) * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        vae = self.parts["vae"]
        scale, shift = scale_shift(vae)
        return vae.decode((latents / scale + shift).to(vae.device, vae.dtype), return_dict=False)[0].float()

    def encode_prompt(
        self, texts: list[str], images: list[Image.Image] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D] (T5, padded) and `pooled` [P] (CLIP)."""
        clip, t5 = self.parts["text_encoder"], self.parts["text_encoder_2"]
        clip_ids = tokenize(self.parts["tokenizer"], texts, self._pooled_length, clip.device)
        t5_ids = tokenize(self.parts["tokenizer_2"], texts, self._text_length, t5.device)
        return list(rows(text=t5(t5_ids)[0], pooled=clip(clip_ids).pooler_output))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """FLUX.1 has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. Condition `guidance` [B] or [] defaults to 1, unless it is bypassed."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        answer = self.denoiser(
            hidden_states=pack(noisy),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            guidance=self._guidance(cond, len(noisy), noisy.device),
            pooled_projections=cond["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=grid_ids(h // 2, w // 2, device=noisy.device),
            return_dict=False,
        )[0]
        return unpack(answer, h, w)

    def _guidance(self, cond: Conditions, count: int, device: torch.device) -> Tensor | None:
        if not self._takes_guidance:
            return None
        given = cond.get("guidance")
        if given is not None:
            return given.to(torch.float32).expand(count)
        return None if self.bypass_guidance else torch.ones(count, device=device)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of 2x2 tokens."""
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance ("true CFG")."""
        return no + scale * (yes - no)


class OptionalGuidance(CombinedTimestepGuidanceTextProjEmbeddings):
    """The time embedding of FLUX.1-dev that can also be called without guidance: (timestep, pooled)."""

    def forward(self, timestep: Tensor, guidance: Tensor, pooled_projection: Tensor | None = None) -> Tensor:
        """Embedding [B, D] of time, guidance and text; with two arguments, of time and text alone."""
        if pooled_projection is not None:
            return super().forward(timestep, guidance, pooled_projection)
        pooled = guidance
        return self.timestep_embedder(self.time_proj(timestep).to(pooled.dtype)) + self.text_embedder(pooled)


def allow_bypass(transformer: torch.nn.Module) -> torch.nn.Module:
    """Let a guidance-distilled transformer be called without guidance; names of its weights stay the same."""
    embed = transformer.time_text_embed
    if isinstance(embed, CombinedTimestepGuidanceTextProjEmbeddings):
        embed.__class__ = OptionalGuidance
    return transformer
