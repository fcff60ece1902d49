"""HunyuanVideo as a family: https://github.com/Tencent-Hunyuan/HunyuanVideo, HunyuanVideoPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps, steps_of
from toolkit.models.latents import as_video, decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers, masked_tokens, tokenize, trim

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
TEXT_LENGTH = 256
INSTRUCTION = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n"
)
INSTRUCTION_TOKENS = 95
"""Llama's tokens of the instruction, which the network does not see."""
LAYER = -3
"""The hidden states that are read: two layers are skipped."""


class HunyuanVideoFamily:
    """The verbs of HunyuanVideo.

    Text: Llama's hidden states of the prompt behind an instruction, and CLIP's pooled vector. The guidance scale is an
    input.
    """

    pipeline: ClassVar[str] = "HunyuanVideoPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._takes_guidance = bool(parts.source.config("transformer").get("guidance_embeds", True))
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = vae.get("spatial_compression_ratio", 8)
        return Facts(
            channels=vae.get("latent_channels", 16),
            stride=stride,
            frame_stride=vae.get("temporal_compression_ratio", 4),
            multiple=stride * 2,
            base_model="hunyuan_video",
            guidance="embedded",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> latents [B, C, f, h, w]."""
        return encode_scaled(self.parts["vae"], as_video(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W] in -1..1."""
        return decode_scaled(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D] (Llama) and `pooled` [P] (CLIP)."""
        llama, clip = self.parts["text_encoder"], self.parts["text_encoder_2"]
        asked = [f"{INSTRUCTION}{text}<|eot_id|>" for text in texts]
        ids, mask = masked_tokens(self.parts["tokenizer"], asked, INSTRUCTION_TOKENS + TEXT_LENGTH, llama.device)
        (hidden,) = hidden_layers(llama, ids, mask, (LAYER,))
        found = trim(hidden[:, INSTRUCTION_TOKENS:], mask[:, INSTRUCTION_TOKENS:])
        pooled = clip(tokenize(self.parts["tokenizer_2"], texts, 77, clip.device)).pooler_output
        return [{"text": text, "pooled": vector.clone()} for text, vector in zip(found, pooled, strict=True)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """HunyuanVideo has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]. Condition `guidance` [B] or [] defaults to 1."""
        guidance = None
        if self._takes_guidance:
            given = cond.get("guidance")
            scale = torch.ones(()) if given is None else given
            guidance = scale.to(noisy.device, torch.float32).expand(len(noisy)) * 1000
        return self.denoiser(
            hidden_states=noisy,
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond.mask("text"),
            pooled_projections=cond["pooled"],
            guidance=guidance,
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps; the shift is fixed."""
        return flow_steps(steps, shape[-3] * shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance ("true CFG")."""
        return no + scale * (yes - no)
