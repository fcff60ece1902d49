"""HunyuanImage 2.1 as a family: https://github.com/Tencent-Hunyuan/HunyuanImage-2.1, and its pipeline in diffusers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps, steps_of
from toolkit.models.latents import decode_scaled, encode_scaled
from toolkit.models.parts import Parts
from toolkit.models.text import hidden_layers, masked_tokens, trim

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>"
)
TEMPLATE_TOKENS = 34
"""How many tokens come before the prompt; they are cut off."""
TEXT_LENGTH = 1000
GLYPHS_LENGTH = 128
QUOTES = (r"'(.*?)'", r'"(.*?)"', r"\u2018(.*?)\u2019", r"\u201c(.*?)\u201d")
LAYER = -3


class HunyuanImageFamily:
    """The verbs of HunyuanImage 2.1 (not of the distilled and the refiner checkpoints).

    Latents [B, 64, H/32, W/32]; each cell is one token. Text: a layer of Qwen2.5-VL, and ByT5's states of what the
    prompt wants written (`glyphs`); both are masked, so that no padding is stored.
    """

    pipeline: ClassVar[str] = "HunyuanImagePipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        transformer = parts.source.config("transformer")
        if transformer.get("use_meanflow") or transformer.get("guidance_embeds"):
            raise ValueError("model.name_or_path: the distilled HunyuanImage cannot be trained; name the full one")
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", TEXT_LENGTH + TEMPLATE_TOKENS)
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = vae["spatial_compression_ratio"]
        return Facts(
            channels=vae["latent_channels"],
            stride=stride,
            multiple=stride,
            text_length=TEXT_LENGTH,
            base_model="hunyuan_image_2.1",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
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
        """Rows of `text` [L, D] and `glyphs` [L, D]; a single zero where nothing is to be written."""
        encoder = self.parts["text_encoder"]
        chats = [TEMPLATE.format(text) for text in texts]
        ids, mask = masked_tokens(self.parts["tokenizer"], chats, self._text_length, encoder.device)
        (hidden,) = hidden_layers(encoder, ids, mask, (LAYER,))
        prompts = trim(hidden[:, TEMPLATE_TOKENS:], mask[:, TEMPLATE_TOKENS:])
        return [
            {"text": prompt, "glyphs": self._encode_glyphs(text)} for prompt, text in zip(prompts, texts, strict=True)
        ]

    def _encode_glyphs(self, text: str) -> Tensor:
        tokenizer, encoder = self.parts["tokenizer_2"], self.parts["text_encoder_2"]
        written = quoted(text)
        if not written:
            return torch.zeros(1, encoder.config.d_model, device=encoder.device)
        wish = "".join(f'Text "{words}". ' for words in written)
        ids, mask = masked_tokens(tokenizer, [wish], GLYPHS_LENGTH, encoder.device, padding="longest")
        return encoder(input_ids=ids, attention_mask=mask.float())[0][0]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """HunyuanImage has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]."""
        transformer: Any = self.denoiser
        glyphs = cond["glyphs"]
        # a zero stands for nothing, which is not looked at
        mask = cond.mask("glyphs") & glyphs.any(dim=-1)
        with checkpoints_with_names(transformer):
            return transformer(
                hidden_states=noisy,
                timestep=steps_of(t, self.facts.scheduler, noisy.device),
                encoder_hidden_states=cond["text"],
                encoder_attention_mask=cond.mask("text"),
                # they meet a layer norm first, which autocast leaves alone on CPUs
                encoder_hidden_states_2=glyphs.to(transformer.context_embedder_2.norm.weight.dtype),
                encoder_attention_mask_2=mask,
                return_dict=False,
            )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps."""
        return flow_steps(steps, shape[-2] * shape[-1], self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance; the pipeline goes on to a projected one after some steps."""
        return no + scale * (yes - no)


def quoted(text: str) -> list[str]:
    """What stands between quotation marks, one kind of marks after another."""
    return [words for pattern in QUOTES for words in re.findall(pattern, text)]


@contextmanager
def checkpoints_with_names(transformer: Any) -> Iterator[None]:
    """Let checkpointed blocks take arguments by name: diffusers 0.42 passes the mask so, and stops with a TypeError."""
    real = getattr(transformer, "_gradient_checkpointing_func", None)
    if real is None:
        yield
        return
    transformer._gradient_checkpointing_func = lambda block, *inputs, **named: real(partial(block, **named), *inputs)
    try:
        yield
    finally:
        transformer._gradient_checkpointing_func = real
