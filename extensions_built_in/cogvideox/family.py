"""CogVideoX as a family: https://github.com/zai-org/CogVideo, CogVideoXPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import steps_of
from toolkit.models.latents import as_video, decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import rows, tokenize


class CogVideoXFamily:
    """The verbs of CogVideoX 1.0, which predicts v.

    Text: all T5 tokens, padding included, because the network attends to it. The network wants frames before channels.
    """

    pipeline: ClassVar[str] = "CogVideoXPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        config = parts.source.config("transformer")
        if config.get("patch_size_t") is not None:
            raise ValueError(
                f"model.name_or_path: {parts.source.root} is a CogVideoX 1.5; cogvideox knows 1.0 (2B, 5B)"
            )
        self._text_length = config.get("max_text_seq_length", 226)
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = 2 ** (len(vae.get("block_out_channels", (128, 256, 256, 512))) - 1)
        return Facts(
            channels=vae.get("latent_channels", 16),
            stride=stride,
            frame_stride=int(vae.get("temporal_compression_ratio", 4)),
            multiple=stride * 2,
            base_model="cogvideox",
            prediction="v",
            # the 5B's own DPM scheduler walks the same levels, but keeps a memory of its own between the steps
            scheduler={**parts.source.config("scheduler"), "_class_name": "CogVideoXDDIMScheduler"},
            trainables=(Trainable("transformer", blocks=r"transformer_blocks\..*", prefix="transformer."),),
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
        """Rows of `text` [L, D]: T5's hidden states, padding included."""
        encoder = self.parts["text_encoder"]
        return list(rows(text=encoder(tokenize(self.parts["tokenizer"], texts, self._text_length, encoder.device))[0]))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """CogVideoX has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """v, [B, C, f, h, w]."""
        answer = self.denoiser(
            hidden_states=rearrange(noisy, "b c f h w -> b f c h w"),
            encoder_hidden_states=cond["text"],
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            image_rotary_emb=self._rotations(noisy),
            return_dict=False,
        )[0]
        return rearrange(answer, "b f c h w -> b c f h w")

    def _rotations(self, noisy: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rotary positions of the 5B, on a grid that spans the size it was trained on; the 2B has fixed ones inside."""
        config: Any = self.denoiser.config
        if not config.use_rotary_positional_embeddings:
            return None
        f, h, w = noisy.shape[-3:]
        patch = config.patch_size
        grid = h // patch, w // patch
        crops = get_resize_crop_region_for_grid(grid, config.sample_width // patch, config.sample_height // patch)
        return get_3d_rotary_pos_embed(config.attention_head_dim, crops, grid, f, device=noisy.device)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler knows its levels."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
