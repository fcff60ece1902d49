"""HunyuanVideo 1.5 as a family: https://github.com/Tencent-Hunyuan/HunyuanVideo-1.5, HunyuanVideo15Pipeline."""

from __future__ import annotations

import re
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
from toolkit.models.text import chat_text, hidden_layers, masked_tokens, trim

TEXT_LENGTH = 1000
GLYPH_LENGTH = 256
# the gaps are wide because the release breaks its lines inside the string
SYSTEM = (" " * 9).join(
    (
        "You are a helpful assistant. Describe the video by detailing the following aspects:",
        "1. The main content and theme of the video.",
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
        "4. background environment, light, style and atmosphere.",
        "5. camera angles, movements, and transitions used in the video.",
    )
)
SYSTEM_TOKENS = 108
"""Qwen's tokens before the prompt, which the network does not see."""
LAYER = -3
"""The hidden states that are read: two layers are skipped."""
QUOTED = re.compile(r"\"(.*?)\"|\u201c(.*?)\u201d")


class HunyuanVideo15Family:
    """The verbs of HunyuanVideo 1.5, text to video.

    Text: Qwen2.5-VL's hidden states of the prompt behind an instruction (`text`), and ByT5's of what the prompt quotes
    (`glyphs`, often none). The network also has room for a first frame, which stays empty.
    """

    pipeline: ClassVar[str] = "HunyuanVideo15Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        last = parts.source.config("transformer").get("num_layers", 54) - 1
        # of the last block, what becomes of the text is dropped
        unused = rf"{last}\.(attn\.(add_q_proj|to_add_out)|ff_context)"
        return Facts(
            channels=vae.get("latent_channels", 32),
            stride=vae.get("spatial_compression_ratio", 16),
            frame_stride=vae.get("temporal_compression_ratio", 4),
            multiple=vae.get("spatial_compression_ratio", 16),
            base_model="hunyuan_video_1.5",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", rf"transformer_blocks\.(?!{unused}).*", "transformer."),),
        )

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> latents [B, C, f, h, w]."""
        # one by one: the VAE's attention mask does not fit a batch (diffusers 0.42)
        return torch.cat([encode_scaled(self.parts["vae"], video) for video in as_video(pixels).split(1)])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W] in -1..1."""
        return torch.cat([decode_scaled(self.parts["vae"], one) for one in latents.split(1)])

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D] (Qwen) and `glyphs` [M, E] (ByT5), M = 0 if nothing is quoted."""
        tokenizer, qwen = self.parts["tokenizer"], self.parts["text_encoder"]
        asked = [chat_text(tokenizer, text or " ", system=SYSTEM) for text in texts]
        ids, mask = masked_tokens(tokenizer, asked, SYSTEM_TOKENS + TEXT_LENGTH, qwen.device, padding="longest")
        (hidden,) = hidden_layers(qwen, ids, mask, (LAYER,))
        found = trim(hidden[:, SYSTEM_TOKENS:], mask[:, SYSTEM_TOKENS:])
        return [{"text": one, "glyphs": self._glyphs(text)} for one, text in zip(found, texts, strict=True)]

    def _glyphs(self, text: str) -> Tensor:
        """ByT5's hidden states [M, E] of the words in quotation marks."""
        byt5 = self.parts["text_encoder_2"]
        quoted = dict.fromkeys(first or second for first, second in QUOTED.findall(text))
        if not quoted:
            return torch.zeros(0, byt5.config.d_model, device=byt5.device, dtype=byt5.dtype)
        named = "".join(f'Text "{words}". ' for words in quoted)
        ids, mask = masked_tokens(self.parts["tokenizer_2"], [named], GLYPH_LENGTH, byt5.device, padding="longest")
        return trim(byt5(input_ids=ids, attention_mask=mask.float())[0], mask)[0]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """Text to video has no picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]."""
        denoiser: Any = self.denoiser
        # norms are the first that see glyphs and frame, and their weights want their own precision
        glyphs = cond["glyphs"].to(denoiser.context_embedder_2.norm.weight.dtype)
        no_frame = torch.zeros_like(noisy), torch.zeros_like(noisy[:, :1])
        return denoiser(
            hidden_states=torch.cat([noisy, *no_frame], dim=1),
            timestep=steps_of(t, self.facts.scheduler, noisy.device),
            encoder_hidden_states=cond["text"],
            encoder_attention_mask=cond.mask("text"),
            encoder_hidden_states_2=glyphs,
            encoder_attention_mask_2=cond.mask("glyphs"),
            # one empty token instead of 729: it is masked
            image_embeds=glyphs.new_zeros(len(noisy), 1, denoiser.config.image_embed_dim),
            return_dict=False,
        )[0]

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps; the shift is fixed."""
        return flow_steps(steps, shape[-3] * shape[-2] * shape[-1], self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
