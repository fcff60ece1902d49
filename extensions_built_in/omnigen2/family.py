"""OmniGen2 as a family: Wu et al. (2025), https://arxiv.org/abs/2506.18871.

diffusers has no pipeline for it. What the tests hold are the names and number of the weights, the position ids, and
that training and sampling agree; pictures of the published checkpoint could not be compared here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from extensions_built_in.omnigen2.model import MAX_REFERENCES
from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"(noise_refiner|context_refiner|layers)\..*"
BLOCKS_AND_REFERENCES = r"(noise_refiner|context_refiner|ref_image_refiner|layers)\..*"
TEXT_LENGTH = 256
SYSTEM = "You are a helpful assistant that generates high-quality images based on user instructions."
MAX_SIDE = 1024
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "use_dynamic_shifting": True,
}
"""The checkpoint's own scheduler class counts time the other way round; its steps are these (see `schedule`)."""


class OmniGen2Family:
    """The verbs of OmniGen2. Its network counts time from noise (0) to data (1) and answers data - noise.

    Guidance moves away from the negative prompt with the same references.
    """

    pipeline: ClassVar[str] = "OmniGen2Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("processor", "mllm"),
        "encode_condition": ("vae",),
        "predict": ("transformer",),
    }

    def __init__(
        self, parts: Parts, adapt_reference_refiner: bool = False, max_pixels: int = MAX_SIDE * MAX_SIDE
    ) -> None:
        self.parts, self.max_pixels = parts, max_pixels
        vae = parts.source.config("vae")
        stride = 2 ** (len(vae["block_out_channels"]) - 1)
        blocks = BLOCKS_AND_REFERENCES if adapt_reference_refiner else BLOCKS
        self.facts = Facts(
            channels=vae["latent_channels"],
            stride=stride,
            multiple=stride * 2,
            base_model="omnigen2",
            scheduler=SCHEDULER,
            trainables=(Trainable("transformer", blocks, prefix="transformer."),),
            references="tokens",
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
        """Rows of `text` [L, D]: the last layer of Qwen2.5-VL, which does not see the pictures, without padding."""
        encoder, tokenizer = self.parts["mllm"], self.parts["processor"]
        turns = [
            tokenizer.apply_chat_template(
                [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
                tokenize=False,
                add_generation_prompt=False,
            )
            for text in texts
        ]
        ids, mask = masked_tokens(tokenizer, turns, TEXT_LENGTH, encoder.device, padding="longest")
        hidden = encoder.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return [{"text": text} for text in trim(hidden, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """`reference.i` [C, h, w] of each picture, at its own size unless that is too large."""
        if len(images) > MAX_REFERENCES:
            raise ValueError(f"OmniGen2 takes {MAX_REFERENCES} reference pictures, not {len(images)}")
        return {
            f"reference.{index}": self.encode_image(to_pixels(self._shrink(image)[None]))[0]
            for index, image in enumerate(images)
        }

    def _shrink(self, image: Image.Image) -> np.ndarray:
        """uint8 [H, W, 3] with sides that are multiples, of at most `max_pixels` and MAX_SIDE."""
        area, longest = image.width * image.height, max(image.size)
        scale = min(1.0, math.sqrt(self.max_pixels / area), MAX_SIDE / longest)
        multiple = self.facts.multiple
        width, height = (max(multiple, int(side * scale) // multiple * multiple) for side in image.size)
        return fit(image.convert("RGB"), (width, height))

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        time = (1 - t).to(noisy.device, torch.float32, non_blocking=True)
        references = [reference.to(noisy.dtype) for reference in cond.numbered("reference")]
        return -self.denoiser(noisy, time, cond["text"], cond.mask("text"), references)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by m = sqrt(h w) / 40, which is 3.2 at 1024 x 1024 pixels."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": math.log(math.sqrt(shape[-2] * shape[-1]) / 40)}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
