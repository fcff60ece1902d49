"""Ideogram 4 as a family: https://huggingface.co/ideogram-ai, Ideogram4Pipeline in diffusers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.transformers.transformer_ideogram4 import (
    IMAGE_POSITION_OFFSET,
    LLM_TOKEN_INDICATOR,
    OUTPUT_IMAGE_INDICATOR,
    SEQUENCE_PADDING_INDICATOR,
)
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.latents import grid_ids, mode
from toolkit.models.parts import Parts
from toolkit.models.text import chat_text

BLOCKS = r"layers\..*"
TAPPED = (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 35)
"""Layers of Qwen3-VL that the network sees, as far as there are any."""
LOWEST, HIGHEST = 1 / (1 + math.exp(7.5)), 1 - 1 / (1 + math.exp(9.0))
"""The noise levels between which sampling stays."""


class Ideogram4Family:
    """The verbs of Ideogram 4. Latents are 2x2 cells in the channels, normalized; its network answers x - e.

    A row without tokens is what guidance leads away from: another transformer, which never sees a text, answers it,
    except in training, where it is a dropped caption like any other.
    """

    pipeline: ClassVar[str] = "Ideogram4Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder"),
        "predict": ("transformer", "unconditional_transformer"),
    }

    def __init__(self, parts: Parts, text_length: int, mu: float, std: float) -> None:
        self.parts = parts
        self.text_length, self.mu, self.std = text_length, mu, std
        vae, words = parts.source.config("vae"), parts.source.config("text_encoder")
        self.tapped = [layer for layer in TAPPED if layer < words["text_config"]["num_hidden_layers"]]
        stride = 2 ** len(vae["block_out_channels"])
        self.facts = Facts(
            channels=4 * vae["latent_channels"],
            stride=stride,
            multiple=stride,
            text_length=self.text_length,
            base_model="ideogram4",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer that is trained, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]."""
        vae = self.parts["vae"]
        mean, std = _moments(vae)
        cells = mode(vae.encode(pixels.to(vae.device, vae.dtype))).float()
        return (rearrange(cells, "b c (h p) (w q) -> b (p q c) h w", p=2, q=2) - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        vae = self.parts["vae"]
        mean, std = _moments(vae)
        cells = rearrange(latents.to(vae.device) * std + mean, "b (p q c) h w -> b c (h p) (w q)", p=2, q=2)
        return vae.decode(cells.to(vae.dtype), return_dict=False)[0].float()

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: layers of Qwen3-VL, interleaved. Negative texts have no tokens, whatever they say."""
        rows = [self._encode("" if negative else text) for text in texts]
        return [{"text": row[:0].clone() if negative else row} for row in rows]

    def _encode(self, text: str) -> Tensor:
        model, tokenizer = self.parts["text_encoder"].language_model, self.parts["tokenizer"]
        ids = tokenizer(chat_text(tokenizer, text), add_special_tokens=False).input_ids[: self.text_length]
        seen: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            return lambda module, inputs, output: seen.update({layer: output})

        # the states that the model lists itself are normalized after the last layer
        hooks = [model.layers[layer].register_forward_hook(keep(layer)) for layer in self.tapped]
        try:
            model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack([seen[layer][0] for layer in self.tapped], dim=-1).flatten(1).float()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Ideogram 4 has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w]. The tokens of the text come before those of the picture."""
        (h, w), text, device = noisy.shape[-2:], cond["text"], noisy.device
        length = text.shape[1]
        is_plain = length == 0 and not self.denoiser.training
        tokens = rearrange(noisy, "b c h w -> b (h w) c")
        words = torch.arange(length, device=device)[:, None].expand(-1, 3)
        positions = torch.cat([words, grid_ids(h, w, device=device).long() + IMAGE_POSITION_OFFSET])
        is_word = torch.nn.functional.pad(cond.mask("text"), (0, h * w), value=False)
        is_token = torch.nn.functional.pad(cond.mask("text"), (0, h * w), value=True)
        roles = LLM_TOKEN_INDICATOR * is_word
        roles[:, length:] = OUTPUT_IMAGE_INDICATOR
        answer = self.parts["unconditional_transformer" if is_plain else "transformer"](
            hidden_states=torch.nn.functional.pad(tokens, (0, 0, length, 0)),
            timestep=1 - t.to(device, torch.float32, non_blocking=True),
            encoder_hidden_states=torch.nn.functional.pad(text, (0, 0, 0, h * w)),
            position_ids=positions.expand(len(noisy), -1, -1),
            segment_ids=torch.where(is_token, 1, SEQUENCE_PADDING_INDICATOR),
            indicator=roles,
            return_dict=False,
        )[0]
        return -rearrange(answer[:, length:], "b (h w) c -> b c h w", h=h, w=w)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Logit-normal noise levels, higher for more pixels."""
        pixels = shape[-2] * shape[-1] * self.facts.stride**2
        mu = self.mu + 0.5 * math.log(pixels / 512**2)
        quantiles = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)[:-1]
        levels = torch.special.expit(mu + self.std * torch.special.ndtri(quantiles))
        return {"sigmas": levels.clamp(LOWEST, HIGHEST).float().tolist()}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)


def _moments(vae: Any) -> tuple[Tensor, Tensor]:
    """(mean, std) [1, C, 1, 1] of the latents: statistics of a batch norm."""
    mean, variance = (value.float().view(1, -1, 1, 1) for value in (vae.bn.running_mean, vae.bn.running_var))
    return mean, (variance + vae.config.batch_norm_eps).sqrt()
