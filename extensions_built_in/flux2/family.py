"""FLUX.2 (dev and klein) as a family: https://github.com/black-forest-labs/flux2, Flux2Pipeline in diffusers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from extensions_built_in.flux2.prompts import TextEncoding, encode_texts
from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length
from toolkit.models.family import Facts, Trainable
from toolkit.models.latents import decode_patches, encode_patches, grid_ids
from toolkit.models.parts import Parts
from toolkit.models.text import rows

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
TIME_STEP = 10
"""Between a picture and the next along the first axis of the position ids."""


class Flux2Family:
    """The verbs of FLUX.2.

    Latents [B, 128, H/16, W/16]: 2x2 cells of the VAE's, normalized by its batch-norm statistics; each is one token.
    Text: three layers of a language model, padding included, because the network attends to it. References are more
    tokens (`reference.i`). dev takes the guidance scale as an input; klein is guided by a second pass.
    """

    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "encode_condition": ("vae",),
        "predict": ("transformer",),
    }

    def __init__(
        self,
        parts: Parts,
        text: TextEncoding,
        *,
        base_model: str = "flux2",
        max_pixels: int = 1024 * 1024,
        match_target: bool = False,
        bypass_guidance: bool = False,
    ) -> None:
        self.parts = parts
        self.text = text
        self.pipeline = text.pipeline
        self.max_pixels = max_pixels
        self.match_target = match_target
        self.bypass_guidance = bypass_guidance
        self._text_length = text_length(parts.source, "tokenizer", 512)
        self._takes_guidance = bool(parts.source.config("transformer").get("guidance_embeds", True))
        self.facts = self._read_facts(parts, base_model)

    def _read_facts(self, parts: Parts, base_model: str) -> Facts:
        vae = parts.source.config("vae")
        stride = 2 ** len(vae["block_out_channels"])
        return Facts(
            channels=4 * vae.get("latent_channels", 32),
            stride=stride,
            multiple=stride,
            text_length=self._text_length,
            base_model=base_model,
            guidance="embedded" if self._takes_guidance else "cfg",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
            references="tokens",
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        vae = self.parts["vae"]
        return encode_patches(vae, pixels, vae.config.batch_norm_eps)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        vae = self.parts["vae"]
        return decode_patches(vae, latents, vae.config.batch_norm_eps)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, 3 D]."""
        tokenizer, encoder = self.parts["tokenizer"], self.parts["text_encoder"]
        layers = encode_texts(self.text, tokenizer, encoder, texts, self._text_length)
        return list(rows(text=torch.cat(layers, dim=-1)))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """`reference.0`, ... [C, h, w]: each picture at its own size, or with the area of the target."""
        area = shape[-2] * shape[-1] * self.facts.stride**2 if self.match_target else None
        pictures = [cut(image.convert("RGB"), self.facts.multiple, self.max_pixels, area) for image in images]
        return {
            f"reference.{index}": self.encode_image(to_pixels(np.array(picture)[None]))[0]
            for index, picture in enumerate(pictures)
        }

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. Condition `guidance` [B] or [] defaults to 1, unless it is bypassed."""
        h, w = noisy.shape[-2:]
        text = cond["text"]
        text_ids = torch.zeros(text.shape[1], 4, device=noisy.device)
        text_ids[:, 3] = torch.arange(text.shape[1], device=noisy.device)
        latents = [noisy, *cond.numbered("reference")]
        ids = [grid_ids(x.shape[-2], x.shape[-1], TIME_STEP * number, noisy.device) for number, x in enumerate(latents)]
        answer = self.denoiser(
            hidden_states=torch.cat([rearrange(x, "b c h w -> b (h w) c") for x in latents], dim=1),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            guidance=self._guidance(cond, len(noisy), noisy.device),
            encoder_hidden_states=text,
            txt_ids=text_ids,
            img_ids=torch.nn.functional.pad(torch.cat(ids), (0, 1)),
            return_dict=False,
        )[0]
        return rearrange(answer[:, : h * w], "b (h w) c -> b c h w", h=h)

    def _guidance(self, cond: Conditions, count: int, device: torch.device) -> Tensor | None:
        if not self._takes_guidance:
            return None
        given = cond.get("guidance")
        if given is not None:
            return given.to(torch.float32).expand(count)
        return None if self.bypass_guidance else torch.ones(count, device=device)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the numbers of tokens and of steps."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": empirical_mu(shape[-2] * shape[-1], steps)}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)


def empirical_mu(tokens: int, steps: int) -> float:
    """The shift mu that FLUX.2's authors fitted: linear in the tokens for 10 and for 200 steps, and between these."""
    at_200 = 0.00016927 * tokens + 0.45666666
    if tokens > 4300:
        return at_200
    at_10 = 8.73809524e-05 * tokens + 1.89833333
    return at_200 + (at_200 - at_10) / 190 * (steps - 200)


def cut(image: Image.Image, multiple: int, max_pixels: int, area: int | None = None) -> Image.Image:
    """The picture at its own size, with at most `max_pixels` or at about `area`; what exceeds multiples is cut off."""
    width, height = image.size
    if area or width * height > max_pixels:
        scale = math.sqrt((area or max_pixels) / (width * height))
        width, height = (max(multiple, int(side * scale)) for side in (width, height))
        image = Image.fromarray(fit(image, (width, height)))
    kept_width, kept_height = width // multiple * multiple, height // multiple * multiple
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return image.crop((left, top, left + kept_width, top + kept_height))
