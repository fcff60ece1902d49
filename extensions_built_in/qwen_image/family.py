"""Qwen-Image and its editing versions as families: Wu et al. (2025), https://arxiv.org/abs/2508.02324.

QwenImagePipeline, QwenImageEditPipeline and QwenImageEditPlusPipeline in diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from toolkit.data.pictures.image import to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps
from toolkit.models.latents import decode_standardized, encode_standardized, norm_like, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

TEXT_LENGTH = 512
TURN = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
CHANGE = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
PAD = "<|image_pad|>"


class QwenImageFamily:
    """The verbs of Qwen-Image. Latents are packed into 2x2 tokens; text is what Qwen2.5-VL makes of a chat turn."""

    pipeline: ClassVar[str] = "QwenImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer",),
    }
    turn: ClassVar[str] = TURN.format(DESCRIBE, "{}")
    num_dropped: ClassVar[int] = 34
    """Tokens of the turn before the user's text, which the network does not see."""
    base_model: ClassVar[str] = "qwen_image"
    references: ClassVar[str] = "none"

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae, transformer = parts.source.config("vae"), parts.source.config("transformer")
        stride = 2 ** len(vae["temperal_downsample"])
        # the text side of the last block is dropped: nothing behind these layers is seen
        unseen = rf"{transformer['num_layers'] - 1}\.(attn\.(add_q_proj|to_add_out)|txt_mlp\.)"
        self.facts = Facts(
            channels=vae["z_dim"],
            stride=stride,
            multiple=stride * 4,
            text_length=TEXT_LENGTH,
            base_model=self.base_model,
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", rf"transformer_blocks\.(?!{unseen}).*", "transformer."),),
            references=self.references,
            needs_references=self.references != "none",
            prompt_images=self.references != "none",
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        return encode_standardized(self.parts["vae"], pixels.unsqueeze(2)).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents.unsqueeze(2)).squeeze(2)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: the last layer of Qwen2.5-VL, without padding."""
        encoder = self.parts["text_encoder"]
        turns = [self.turn.format(text) for text in texts]
        ids, mask = masked_tokens(
            self.parts["tokenizer"], turns, 1024 + self.num_dropped, encoder.device, padding="longest"
        )
        hidden = encoder.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return [{"text": self._seen(tokens)} for tokens in trim(hidden, mask)]

    def _seen(self, tokens: Tensor) -> Tensor:
        return tokens[self.num_dropped :][:TEXT_LENGTH].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Qwen-Image has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. References are further tokens behind those of the picture."""
        h, w = noisy.shape[-2:]
        pictures = [noisy, *(reference.to(noisy.dtype) for reference in cond.numbered("reference"))]
        answer = self.denoiser(
            hidden_states=torch.cat([pack(picture) for picture in pictures], dim=1),
            timestep=t.to(noisy.device, torch.float32, non_blocking=True),
            encoder_hidden_states=cond["text"],
            encoder_hidden_states_mask=cond.mask("text") if "text" in cond.lengths else None,
            img_shapes=[[(1, picture.shape[-2] // 2, picture.shape[-1] // 2) for picture in pictures]] * len(noisy),
            return_dict=False,
        )[0]
        return unpack(answer[:, : h * w // 4], h, w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of 2x2 tokens."""
        return flow_steps(steps, shape[-2] * shape[-1] // 4, self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Classifier-free guidance, each 2x2 token rescaled to the norm that it has in `yes`."""
        h, w = yes.shape[-2:]
        return unpack(norm_like(pack(yes), pack(no + scale * (yes - no)), dim=-1), h, w)


class QwenImageEditFamily(QwenImageFamily):
    """The verbs of Qwen-Image-Edit: the reference goes through the VAE and is shown to the text encoder.

    `area`: pixels of a reference for the VAE (None: as the target); `seen_area`: for the text encoder.
    """

    pipeline: ClassVar[str] = "QwenImageEditPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **QwenImageFamily.needs,
        "encode_prompt": ("tokenizer", "text_encoder", "processor"),
        "encode_condition": ("vae",),
    }
    turn: ClassVar[str] = TURN.format(CHANGE, "{}")
    num_dropped: ClassVar[int] = 64
    base_model: ClassVar[str] = "qwen_image_edit"
    references: ClassVar[str] = "tokens"
    max_references: ClassVar[int] = 1
    label: ClassVar[str] = ""
    """Before each picture in the text."""

    def __init__(self, parts: Parts, area: int | None, seen_area: int) -> None:
        super().__init__(parts)
        self.area, self.seen_area = area, seen_area

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: the last layer of Qwen2.5-VL, which sees the pictures of each text."""
        pictures = images or [[] for _ in texts]
        return [self._encode_turn(text, seen) for text, seen in zip(texts, pictures, strict=True)]

    def _encode_turn(self, text: str, pictures: Sequence[Image.Image]) -> Row:
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        self._check_number(pictures)
        turn = self.turn.format("".join(self.label.format(i + 1) + PICTURE for i in range(len(pictures))) + text)
        seen: dict[str, Tensor] = {}
        if pictures:
            resized = [_resize(picture, self.seen_area) for picture in pictures]
            found = self.parts["processor"](images=resized, return_tensors="pt")
            seen = {name: found[name].to(encoder.device) for name in ("pixel_values", "image_grid_thw")}
            # one token per 2x2 patches of a picture
            before, *rest = turn.split(PAD)
            counts = [int(grid.prod()) // 4 for grid in seen["image_grid_thw"]]
            turn = before + "".join(PAD * count + part for count, part in zip(counts, rest, strict=True))
        ids, mask = masked_tokens(tokenizer, [turn], 8192, encoder.device, padding="longest")
        if pictures:
            # without these, transformers 5 gives the pictures' tokens the positions of a text
            seen["mm_token_type_ids"] = (ids == tokenizer.convert_tokens_to_ids(PAD)).int()
        hidden = encoder.model(input_ids=ids, attention_mask=mask, use_cache=False, **seen).last_hidden_state
        return {"text": self._seen(hidden[0])}

    def _seen(self, tokens: Tensor) -> Tensor:
        return tokens[self.num_dropped :].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """`reference.i` [C, h, w] of each picture."""
        self._check_number(images)
        area = self.area or shape[-2] * shape[-1] * self.facts.stride**2
        return {
            f"reference.{i}": self.encode_image(to_pixels(np.array(_resize(image, area))[None]))[0]
            for i, image in enumerate(images)
        }

    def _check_number(self, pictures: Sequence[Image.Image]) -> None:
        if len(pictures) > self.max_references:
            raise ValueError(f"{self.base_model} takes {self.max_references} reference pictures, not {len(pictures)}")


class QwenImageEditPlusFamily(QwenImageEditFamily):
    """The verbs of Qwen-Image-Edit-Plus (2509, 2511): up to three references, shown smaller to the text encoder."""

    pipeline: ClassVar[str] = "QwenImageEditPlusPipeline"
    base_model: ClassVar[str] = "qwen_image_edit_plus"
    max_references: ClassVar[int] = 3
    label: ClassVar[str] = "Picture {}: "


def _resize(picture: Image.Image, area: int) -> Image.Image:
    """The picture at about `area` pixels, sides multiples of 32."""
    ratio = picture.width / picture.height
    sides = math.sqrt(area * ratio), math.sqrt(area / ratio)
    width, height = (max(1, round(side / 32)) * 32 for side in sides)
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
