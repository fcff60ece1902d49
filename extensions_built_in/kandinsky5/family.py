"""Kandinsky 5 for pictures as a family: https://arxiv.org/abs/2511.14993, Kandinsky5T2IPipeline in diffusers."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.latents import mode
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens

BLOCKS = r"(text|visual)_transformer_blocks\..*"
TURN = (
    "<|im_start|>system\nYou are a prompt engineer. Describe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>"
)
NUM_DROPPED = 40
"""Tokens of `TURN` before the user's text, which the network does not see."""
TEXT_LENGTH = 512
CLIP_LENGTH = 77


class Kandinsky5Family:
    """The verbs of Kandinsky 5: Qwen2.5-VL for the words, CLIP for the whole; a picture is a video of one frame."""

    pipeline: ClassVar[str] = "Kandinsky5T2IPipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        vae, transformer = parts.source.config("vae"), parts.source.config("transformer")
        stride = 2 ** (len(vae["block_out_channels"]) - 1)
        self.patch = transformer.get("patch_size", (1, 2, 2))[-1]
        self.facts = Facts(
            channels=vae["latent_channels"],
            stride=stride,
            multiple=stride * self.patch,
            base_model="kandinsky5",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=BLOCKS, prefix="transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> latents [B, C, h, w]; they are scaled, but not shifted."""
        vae = self.parts["vae"]
        return mode(vae.encode(pixels.to(vae.device, vae.dtype))).float() * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, h, w] -> pixels [B, 3, H, W] in -1..1."""
        vae = self.parts["vae"]
        return vae.decode((latents / vae.config.scaling_factor).to(vae.device, vae.dtype), return_dict=False)[0].float()

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D], the last layer of Qwen2.5-VL, and `pooled` [D], CLIP's."""
        plain = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        return [{"text": self._encode(text), "pooled": self._encode_whole(text)} for text in plain]

    def _encode(self, text: str) -> Tensor:
        encoder = self.parts["text_encoder"]
        ids = self.parts["tokenizer"](TURN.format(text)).input_ids
        # a long text is cut before the end of the turn
        ids = ids[: NUM_DROPPED + TEXT_LENGTH - 1][: len(ids) - 1] + ids[-1:]
        tokens = torch.tensor([ids], device=encoder.device)
        return encoder.model(input_ids=tokens, use_cache=False).last_hidden_state[0, NUM_DROPPED:].clone()

    def _encode_whole(self, text: str) -> Tensor:
        encoder = self.parts["text_encoder_2"]
        ids, mask = masked_tokens(self.parts["tokenizer_2"], [text], CLIP_LENGTH, encoder.device)
        return encoder(input_ids=ids, attention_mask=mask).pooler_output[0].clone()

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """No picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, h, w].

        The network has no mask for padding: texts of several lengths go one by one.
        """
        text, pooled, lengths = cond["text"], cond["pooled"], cond.lengths.get("text")
        if lengths is None:
            return self._answer(noisy, t, text, pooled)
        each = zip(noisy.split(1), t.split(1), text.split(1), pooled.split(1), lengths, strict=True)
        return torch.cat([self._answer(x, time, words[:, :length], whole) for x, time, words, whole, length in each])

    def _answer(self, noisy: Tensor, t: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        (h, w), device = noisy.shape[-2:], noisy.device
        time = t * self.facts.scheduler.get("num_train_timesteps", 1000)
        answer = self.denoiser(
            hidden_states=rearrange(noisy, "b c h w -> b 1 h w c"),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=time.to(device, torch.float32, non_blocking=True),
            visual_rope_pos=[torch.arange(size, device=device) for size in (1, h // self.patch, w // self.patch)],
            text_rope_pos=torch.arange(text.shape[1], device=device),
            return_dict=False,
        )
        return rearrange(answer, "b 1 h w c -> b c h w")

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler's own noise levels."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
