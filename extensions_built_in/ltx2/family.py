"""LTX-2 as a family, video alone: https://github.com/Lightricks/LTX-2, LTX2Pipeline in diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.facts import text_length
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps, steps_of, steps_per_token
from toolkit.models.latents import as_video, decode_standardized, encode_standardized
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, rows

VIDEO_BLOCKS = r"transformer_blocks\.\d+\.(attn1|attn2|ff)\..*"
TEXT_LENGTH = 1024
FPS = 24.0
"""Frames per second of a video that does not say."""


class LTX2Family:
    """The verbs of LTX-2 for its video stream.

    The network has a video and an audio stream that look at each other. Here they are separated, as the network knows
    it from guidance by modality: nothing is heard, samples have no sound, and only layers of the video stream are
    trained. Such a LoRA works in the joint model too, where the audio stream stays as it was.

    Every latent cell is a token. Text: all hidden states of Gemma, through the checkpoint's own `connectors`, which
    fill the padding with tokens that the network attends to. A first frame is `given`, at time 0; a picture is taken as
    it is, while the pipeline would compress it as a video first.
    """

    pipeline: ClassVar[str] = "LTX2Pipeline"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("vae",),
        "encode_condition": ("vae",),
        "decode": ("vae",),
        "encode_prompt": ("tokenizer", "text_encoder", "connectors"),
        "predict": ("transformer",),
    }

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._text_length = text_length(parts.source, "tokenizer", TEXT_LENGTH)
        self.facts = self._read_facts(parts)

    @staticmethod
    def _read_facts(parts: Parts) -> Facts:
        vae = parts.source.config("vae")
        stride = vae.get("spatial_compression_ratio") or 32
        return Facts(
            channels=vae.get("latent_channels", 128),
            stride=stride,
            frame_stride=vae.get("temporal_compression_ratio") or 8,
            multiple=stride,
            text_length=TEXT_LENGTH,
            base_model="ltx2",
            scheduler=parts.source.config("scheduler"),
            trainables=(Trainable("transformer", blocks=VIDEO_BLOCKS, prefix="transformer."),),
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
        """Rows of `text` [L, D], as the video stream reads it."""
        encoder, tokenizer = self.parts["text_encoder"], self.parts["tokenizer"]
        tokenizer.padding_side = "left"
        ids, mask = masked_tokens(tokenizer, [text.strip() for text in texts], self._text_length, encoder.device)
        states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, logits_to_keep=1).hidden_states
        layers = torch.stack(states, dim=-1)
        text, _, _ = self.parts["connectors"](layers, mask, padding_side="left")
        return list(rows(text=text))

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """`given` [C, 1, h, w]: the first frame, `images[0]`, of a video whose latents have `shape` [C, f, h, w]."""
        _, f, h, w = shape
        if not images or f == 1:
            return {}
        stride = self.facts.stride
        return {"given": self.encode_image(to_pixels(fit(images[0].convert("RGB"), (w * stride, h * stride))[None]))[0]}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]. Condition `fps` [B] or [] defaults to 24."""
        f, h, w = noisy.shape[-3:]
        fps = torch.as_tensor(FPS) if cond.get("fps") is None else cond["fps"]
        times = steps_of(t, self.facts.scheduler, noisy.device)
        answer, _ = self.denoiser(
            hidden_states=rearrange(noisy, "b c f h w -> b (f h w) c"),
            encoder_hidden_states=cond["text"],
            timestep=times if cond.get("given") is None else steps_per_token(times, f, h * w, cond["given"]),
            sigma=times,
            num_frames=f,
            height=h,
            width=w,
            fps=fps.to(noisy.device, torch.float32).expand(len(noisy)).view(-1, 1, 1),
            isolate_modalities=True,
            **self._silence(noisy, times),
            return_dict=False,
        )
        return rearrange(answer, "b (f h w) c -> b c f h w", f=f, h=h, w=w)

    def _silence(self, noisy: Tensor, times: Tensor) -> dict[str, Any]:
        """One token of audio and of its text, for a stream whose answer nobody reads."""
        config: Any = self.denoiser.config
        width = config.caption_channels if config.use_prompt_embeddings else config.audio_cross_attention_dim
        return {
            "audio_hidden_states": noisy.new_zeros(len(noisy), 1, config.audio_in_channels),
            "audio_encoder_hidden_states": noisy.new_zeros(len(noisy), 1, width),
            "audio_timestep": times,
            "audio_num_frames": 1,
        }

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Noise levels 1 to 1/steps, shifted by the number of latent cells."""
        return flow_steps(steps, shape[-3] * shape[-2] * shape[-1], self.facts.scheduler)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
