"""Qwen-Image 2.1 as a family: https://huggingface.co/Qwen, QwenImage21Pipeline in diffusers, without references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import linear_mu
from toolkit.models.latents import decode_standardized, encode_standardized
from toolkit.models.parts import Parts

BLOCKS = r"transformer_blocks\..*"
SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
USER = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class QwenImage21Family:
    """The verbs of Qwen-Image 2.1: text, then the picture, in one causal sequence of a cell per token.

    Its VAE knows transparency; pictures are opaque here.
    """

    pipeline: ClassVar[str] = "QwenImage21Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("processor", "text_encoder"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae = parts.source.config("vae")
        self.levels: list[float] = parts.source.index().get("sample_sigmas") or []
        stride = vae.get("scale_factor_spatial") or 16
        self.facts = Facts(
            channels=vae["z_dim"],
            stride=stride,
            multiple=stride * 2,
            base_model="qwen_image_21",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        opaque = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        return encode_standardized(self.parts["vae"], opaque.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents.unsqueeze(2)).squeeze(2)[:, :3]

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: the last layer of Qwen3-VL before its norm, without the system's words."""
        return [{"text": self._encode(text)} for text in texts]

    def _encode(self, text: str) -> Tensor:
        model, tokenizer = self.parts["text_encoder"].model.language_model, self.parts["processor"]
        ids = tokenizer(SYSTEM + USER.format(text or " ")).input_ids
        # a hook that returns the norm's input puts it in place of the answer
        hook = model.norm.register_forward_hook(lambda module, inputs, output: inputs[0])
        try:
            hidden = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).last_hidden_state
        finally:
            hook.remove()
        return hidden[0, len(tokenizer(SYSTEM).input_ids) :].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """No picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w].

        The picture's place in the sequence depends on the length of the text: texts of several lengths go one by one.
        """
        text, lengths = cond["text"], cond.lengths.get("text")
        if lengths is None:
            return self._answer(noisy, t, text)
        each = zip(noisy.split(1), t.split(1), text.split(1), lengths, strict=True)
        return torch.cat([self._answer(one, time, words[:, :length]) for one, time, words, length in each])

    def _answer(self, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        (h, w), device = noisy.shape[-2:], noisy.device
        # a slot of the text encoder stands for 2x2 cells
        is_picture = torch.arange(text.shape[1] + h * w // 4, device=device) >= text.shape[1]
        answer = self.denoiser(
            hidden_states=rearrange(noisy, "b c h w -> b (h w) c"),
            encoder_hidden_states=text,
            timestep=t.to(device, torch.float32, non_blocking=True),
            img_shapes=[[(1, h, w)]] * len(noisy),
            img_mask=is_picture.expand(len(noisy), -1),
            return_dict=False,
        )[0]
        return rearrange(answer[:, -h * w :], "b (h w) c -> b c h w", h=h, w=w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The checkpoint's own noise levels if they are for so many steps, else 1 to 1/steps; shifted by the cells."""
        levels = self.levels if len(self.levels) == steps else np.linspace(1.0, 1 / steps, steps)
        return {"sigmas": levels, "mu": linear_mu(shape[-2] * shape[-1], self.facts.scheduler)}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
