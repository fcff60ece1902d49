"""Wan 2.1 and 2.2 as a family: https://github.com/Wan-Video, WanPipeline and WanImageToVideoPipeline in diffusers.

SkyReels V2 (https://github.com/SkyworkAI/SkyReels-V2) is a Wan 2.1 under other class names.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from toolkit.data.pictures.image import fit, to_pixels
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import steps_of, steps_per_token
from toolkit.models.latents import as_video, decode_standardized, encode_standardized
from toolkit.models.parts import Parts
from toolkit.models.text import masked_tokens, trim

BLOCKS = r"blocks\..*"
TEXT_LENGTH = 512
"""Text tokens that the network attends to, zeros behind the text included."""


class WanFamily:
    """The verbs of Wan.

    With a `boundary`, two experts answer: `transformer` for t >= boundary, `transformer_2` below it. Image to video
    comes in two ways. A network with more input channels than it answers takes the condition [20, f, h, w]: 4 channels
    that mark known frames, and the latents of the first frame followed by gray ones; Wan 2.1 reads the frame by CLIP
    too (`image_tokens`). With `time_per_token` (TI2V-5B), the first latent frame is `given`, at time 0.
    """

    def __init__(
        self,
        parts: Parts,
        base_model: str,
        pipeline: str,
        *,
        boundary: float | None = None,
        time_per_token: bool = False,
        high_noise: bool = True,
        low_noise: bool = True,
    ) -> None:
        self.parts = parts
        self.boundary = boundary
        self.time_per_token = time_per_token
        transformer = parts.source.config("transformer")
        self._takes_condition = transformer.get("in_channels", 16) > transformer.get("out_channels", 16)
        self._takes_image_tokens = transformer.get("image_dim") is not None
        self.pipeline = pipeline
        self.needs: Mapping[str, tuple[str, ...]] = self._needs()
        self.facts = self._facts(base_model, high_noise, low_noise)

    def _needs(self) -> dict[str, tuple[str, ...]]:
        needs = {
            "encode_image": ("vae",),
            "decode": ("vae",),
            "encode_prompt": ("tokenizer", "text_encoder"),
            "predict": ("transformer",) if self.boundary is None else ("transformer", "transformer_2"),
        }
        if self._takes_condition or self.time_per_token:
            vision = ("image_processor", "image_encoder") if self._takes_image_tokens else ()
            needs["encode_condition"] = ("vae", *vision)
        return needs

    def _facts(self, base_model: str, high_noise: bool, low_noise: bool) -> Facts:
        vae = self.parts.source.config("vae")
        stride = vae.get("scale_factor_spatial", 8)
        return Facts(
            channels=vae.get("z_dim", 16),
            stride=stride,
            frame_stride=vae.get("scale_factor_temporal", 4),
            multiple=stride * 2,
            text_length=TEXT_LENGTH,
            base_model=base_model,
            scheduler=self.parts.source.config("scheduler"),
            trainables=tuple(self._trainables(high_noise, low_noise)),
            references="first_frame" if "encode_condition" in self.needs else "none",
            needs_references=self._takes_condition,
        )

    def _trainables(self, high_noise: bool, low_noise: bool) -> list[Trainable]:
        if self.boundary is None:
            return [Trainable("transformer", BLOCKS, "transformer.")]
        high = Trainable("transformer", BLOCKS, "transformer.", "_high_noise", (self.boundary, 1.0))
        low = Trainable("transformer_2", BLOCKS, "transformer.", "_low_noise", (0.0, self.boundary))
        return [expert for expert, is_trained in ((high, high_noise), (low, low_noise)) if is_trained]

    @property
    def denoiser(self) -> torch.nn.Module:
        """The transformer, or both experts by part, while they are loaded."""
        if self.boundary is None:
            return self.parts["transformer"]
        return torch.nn.ModuleDict({name: self.parts[name] for name in self.needs["predict"]})

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, (F,) H, W] in -1..1 -> latents [B, C, f, h, w]."""
        return encode_standardized(self.parts["vae"], as_video(pixels))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] -> pixels [B, 3, F, H, W] in -1..1."""
        return decode_standardized(self.parts["vae"], latents)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """Rows of `text` [L, D]: UMT5's hidden states without padding."""
        encoder = self.parts["text_encoder"]
        cleaned = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        ids, mask = masked_tokens(self.parts["tokenizer"], cleaned, TEXT_LENGTH, encoder.device, padding="longest")
        return [{"text": hidden} for hidden in trim(encoder(ids, mask).last_hidden_state, mask)]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """What the first frame, `images[0]`, tells about the video whose latents have `shape` [C, f, h, w].

        `condition` [20, f, h, w] and, for Wan 2.1, `image_tokens` [L, D]; for TI2V-5B `given` [C, 1, h, w].
        """
        _, f, h, w = shape
        if not images or "encode_condition" not in self.needs or (self.time_per_token and f == 1):
            return {}
        stride, frame_stride = self.facts.stride, self.facts.frame_stride
        frame = to_pixels(fit(images[0].convert("RGB"), (w * stride, h * stride))[None])
        if self.time_per_token:
            return {"given": self.encode_image(frame)[0]}
        gray = frame.new_zeros(1, 3, (f - 1) * frame_stride, *frame.shape[-2:])
        latents = self.encode_image(torch.cat([frame.unsqueeze(2), gray], dim=2))[0]
        known = latents.new_zeros(frame_stride, f, h, w)
        known[:, 0] = 1
        row = {"condition": torch.cat([known, latents])}
        if self._takes_image_tokens:
            row["image_tokens"] = self._image_tokens(images[0])
        return row

    def _image_tokens(self, image: Image.Image) -> Tensor:
        encoder = self.parts["image_encoder"]
        pixels = self.parts["image_processor"](images=image, return_tensors="pt").pixel_values
        answer = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True)
        return answer.hidden_states[-2][0]

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity e - x, [B, C, f, h, w]."""
        inputs = self._inputs(noisy, t, cond)
        if self.boundary is None:
            return self.parts["transformer"](**inputs, return_dict=False)[0]
        is_high = t >= self.boundary
        answers: list[Tensor] = []
        order: list[Tensor] = []
        for name, chosen in (("transformer", is_high), ("transformer_2", ~is_high)):
            if chosen.any():
                rows = chosen.nonzero().flatten()
                place = rows.to(noisy.device, non_blocking=True)
                own = {key: value.index_select(0, place) for key, value in inputs.items()}
                answers.append(self.parts[name](**own, return_dict=False)[0])
                order.append(rows)
        back = torch.cat(order).argsort().to(noisy.device, non_blocking=True)
        return torch.cat(answers).index_select(0, back)

    def _inputs(self, noisy: Tensor, t: Tensor, cond: Conditions) -> dict[str, Tensor]:
        """Arguments of the transformer, all [B, ...]."""
        text = cond["text"]
        inputs = {
            "hidden_states": torch.cat([noisy, cond["condition"]], dim=1) if self._takes_condition else noisy,
            "timestep": self._times(t, noisy, cond.get("given")),
            "encoder_hidden_states": torch.nn.functional.pad(text, (0, 0, 0, TEXT_LENGTH - text.shape[1])),
        }
        if self._takes_image_tokens:
            inputs["encoder_hidden_states_image"] = cond["image_tokens"]
        return inputs

    def _times(self, t: Tensor, noisy: Tensor, given: Tensor | None) -> Tensor:
        """Times in 0..1000: [B], or one per token [B, f * h/2 * w/2], 0 in the given frames."""
        times = steps_of(t, self.facts.scheduler, noisy.device)
        f, h, w = noisy.shape[-3:]
        return steps_per_token(times, f, h * w // 4, given) if self.time_per_token else times

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheduler knows its shift."""
        return {"num_inference_steps": steps}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)
