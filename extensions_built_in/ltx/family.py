"""LTX-Video as a family: https://github.com/Lightricks/LTX-Video, LTXPipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps, steps_of, steps_per_token
from toolkit.models.latents import as_video, decode_standardized, encode_standardized
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

TEXT_LENGTH = 128
FPS = 25.0
"""Frames per second of a video that does not say."""


class LTXFamily:
    """The verbs of LTX-Video.

    Every latent cell is a token. Text: T5 reads the padding too, the transformer does not. The frame rate scales the
    positions in time. A first frame is `given`: the first latent frame, at time 0.
    """

    pipeline: ClassVar[str] = "LTXPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "encode_condition": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        halvings = sum(vae.get("spatio_temporal_scaling", (True, True, True, False)))
        stride = vae.get("spatial_compression_ratio") or vae.get("patch_size", 4) * 2**halvings
        return Facts(
            channels=vae.get("latent_channels", 128),
            stride=stride,
            frame_stride=vae.get("temporal_compression_ratio") or vae.get("patch_size_t", 1) * 2**halvings,
            multiple=stride,
            text_length=TEXT_LENGTH,
            base_model="ltxv",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=r"transformer_blocks\..*", prefix="transformer."),),
            references="first_frame",
            numbers=("fps",),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> latents [B, C, f, h, w]."""
        return encode_standardized(self.parts["vae"], as_video(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: T5's hidden states of the text, which it reads with its padding."""
        encoder = self.parts["text_encoder"]
        ids, mask = masked_tokens(self.parts["tokenizer"], texts, TEXT_LENGTH, encoder.device)
        return [{"text": hidden} for hidden in trim(encoder(ids)[0], mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """`given` [C, 1, h, w]: the first frame, `images[0]`, of a video whose latents have `shape` [C, f, h, w]."""
        _, f, h, w = shape
        if not images or f == 1:
            return {}
        stride = self.facts.stride
        return {"given": self.encode_image(to_pixels(fit(images[0].convert("RGB"), (w * stride, h * stride))[None]))[0]}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]. Condition `fps` [B] or [] defaults to 25."""
        f, h, w = noisy.shape[-3:]
        fps = torch.as_tensor(FPS) if cond.get("fps") is None else cond["fps"]
        fps = fps.to(noisy.device, torch.float32).expand(len(noisy)).view(-1, 1, 1, 1, 1)
        answer = self.denoiser(
            hidden_states=rearrange(noisy, "b c f h w -> b (f h w) c"),
            encoder_hidden_states=cond["text"],
            timestep=self._times(t, noisy, cond.get("given")),
            encoder_attention_mask=cond.mask("text"),
            num_frames=f,
            height=h,
            width=w,
            rope_interpolation_scale=(self.facts.frame_stride / fps, self.facts.stride, self.facts.stride),
            return_dict=False,
        )[0]
        return rearrange(answer, "b (f h w) c -> b c f h w", f=f, h=h, w=w)

    def _times(self, t: Tensor, noisy: Tensor, given: Tensor | None) -> Tensor:
        """Times in 0..1000: [B], or with given frames one per token [B, f * h * w]."""
        times = steps_of(t, self.facts.scheduler, noisy.device)
        f, h, w = noisy.shape[-3:]
        return times if given is None else steps_per_token(times, f, h * w, given)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of latent cells."""
        return flow_steps(steps, shape[-3] * shape[-2] * shape[-1], self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
