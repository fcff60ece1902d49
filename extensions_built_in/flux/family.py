"""FLUX.1 and its variants as a family: https://github.com/black-forest-labs/flux, the Flux pipelines of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers.models.embeddings import CombinedTimestepGuidanceTextProjEmbeddings
from PIL import Image
from torch import Tensor

from extensions_built_in.flux.variants import FLUX, Variant
from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.family import Vocabulary
from toolkit.models.flow import flow_steps
from toolkit.models.latents import decode_scaled, encode_scaled, grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import rows, tokenize

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
VOCABULARIES = (
    Vocabulary("tokenizer", "text_encoder", "clip_l"),
    # the name that ComfyUI looks for
    Vocabulary("tokenizer_2", "text_encoder_2", "t5xxl"),
)


class FluxFamily:
    """The verbs of FLUX.1.

    Latents [B, 16, H/8, W/8] are packed into 2x2 tokens. Text: all T5 tokens, padding included, because the network
    attends to it, and CLIP's pooled vector. The guidance scale is an input of guidance-distilled checkpoints (dev).
    Variants see pictures as more tokens (`reference.i`) or as more channels of the noisy latents (`control`).
    """

    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "encode_condition": ("vae",),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts, bypass_guidance: bool = False, variant: Variant = FLUX) -> None:
        self.parts = parts
        self.variant = variant
        self.pipeline = variant.pipeline
        self.bypass_guidance = bypass_guidance
        self._text_length = text_length(parts.source, "tokenizer_2", 512)
        self._pooled_length = text_length(parts.source, "tokenizer", 77)
        self._takes_guidance = bool(parts.source.config("transformer")["guidance_embeds"])
        self.facts = replace(
            transformer_facts(parts.source, variant.base_model, BLOCKS, variant.cells),
            guidance="embedded",
            references=variant.references,
            needs_references=variant.needs_references,
            vocabularies=VOCABULARIES,
        )

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
        """Rows of `text` [L, D] (T5, padded) and `pooled` [P] (CLIP)."""
        clip, t5 = self.parts["text_encoder"], self.parts["text_encoder_2"]
        clip_ids = tokenize(self.parts["tokenizer"], texts, self._pooled_length, clip.device)
        t5_ids = tokenize(self.parts["tokenizer_2"], texts, self._text_length, t5.device)
        return list(rows(text=t5(t5_ids)[0], pooled=clip(clip_ids).pooler_output))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Rows of `reference.0`, ... [C, h, w] or `control` [C', h, w]; none without pictures."""
        stride = self.facts.stride
        target = (shape[-2] * stride, shape[-1] * stride)
        return self.variant.encode(self.encode_image, images, target, stride) if images else {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. Condition `guidance` [B] or [] defaults to 1, unless it is bypassed."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        tokens, ids = self._image_tokens(noisy, cond)
        answer = self.denoiser(
            hidden_states=tokens,
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            guidance=self._guidance(cond, len(noisy), noisy.device),
            pooled_projections=cond["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device),
            img_ids=ids,
            return_dict=False,
        )[0]
        return unpack(answer[:, : h * w // 4], h, w)

    def _image_tokens(self, noisy: Tensor, cond: Conditions) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D] of the noisy latents and the references, and their position ids [L, 3]."""
        control = cond.get("control")
        if control is None and self.variant.without is not None:
            control = self.variant.without(noisy)
        latents = [noisy if control is None else torch.cat([noisy, control], dim=1), *cond.numbered("reference")]
        ids = [grid_ids(x.shape[-2] // 2, x.shape[-1] // 2, first, noisy.device) for first, x in enumerate(latents)]
        return torch.cat([pack(x) for x in latents], dim=1), torch.cat(ids)

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
