"""The model family `example_pixels`: every verb of `toolkit/models/family.py`, for a transformer that works on pixels.

Pictures are their own latents and a caption is a bag of hashed words, so nothing has to be downloaded. Shapes: B batch,
H W pixels, L tokens, D width.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Trainable
from toolkit.models.flow import flow_steps
from toolkit.models.latents import grid_ids, pack, unpack
from toolkit.models.parts import Parts
from toolkit.models.source import Source

WORDS = 256
PATCH = 4
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}


class PixelFamily:
    """The verbs. Condition: `words` [WORDS], how often a word of each hash occurs."""

    pipeline: ClassVar[str] = ""
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "encode_image": ("pixels",),
        "decode": ("pixels",),
        "encode_prompt": ("words",),
        "predict": ("transformer",),
    }
    facts = Facts(
        channels=3,
        stride=1,
        multiple=PATCH,
        base_model="example_pixels",
        scheduler=SCHEDULER,
        trainables=(Trainable("transformer", blocks=r"blocks\..*", prefix="transformer."),),
    )

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def denoiser(self) -> nn.Module:
        """The transformer, while it is loaded."""
        return self.parts["transformer"]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 are the latents."""
        return pixels.float()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 3, H, W] are the pixels, in -1..1."""
        return latents.float().clamp(-1, 1)

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        """One row `words` [WORDS] per text."""
        hashes = [[zlib.crc32(word.encode()) % WORDS for word in text.lower().split()] for text in texts]
        return [
            {"words": torch.bincount(torch.tensor(row, dtype=torch.long), minlength=WORDS).float()} for row in hashes
        ]

    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        """No picture conditions."""
        return {}

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """Velocity noise - picture, [B, 3, H, W]."""
        return self.denoiser(noisy, t.to(noisy.device, torch.float32), cond["words"].float())

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Evenly spaced noise levels."""
        return flow_steps(steps, shape[-2] * shape[-1] // PATCH**2, SCHEDULER)

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        """Plain classifier-free guidance."""
        return no + scale * (yes - no)


@dataclass(frozen=True)
class PixelSource(Source):
    """Where the parts come from: made on the spot, or the transformer from a folder that a full fine-tune wrote."""

    width: int = 96
    depth: int = 3
    checkpointing: bool = False

    def load(self, name: str, dtype: torch.dtype, settle: Any = None) -> Any:
        """Only the transformer has weights; it is small enough to be settled as a whole."""
        if name != "transformer":
            return None
        if not self.root:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                # by keyword: diffusers takes positional arguments for defaults and does not save them
                model = PixelTransformer(width=self.width, depth=self.depth)
        else:
            model = PixelTransformer.from_pretrained(Path(self.root) / "transformer")
        model.checkpointing = self.checkpointing
        return nn.Module.to(model, dtype).requires_grad_(False).eval()

    def identity(self, name: str) -> str:
        """Changes when an encoder changes what it gives: part of the key of everything cached."""
        return f"example_pixels {name} {WORDS}"


class PixelTransformer(ModelMixin, ConfigMixin):
    """Patches in, velocity of the patches out; time and words are added to every token."""

    @register_to_config
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.checkpointing = False
        self.patch_in = nn.Linear(3 * PATCH**2, width)
        self.place = nn.Linear(8, width)
        self.time = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))
        self.words = nn.Sequential(nn.Linear(WORDS, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(PixelBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.patch_out = nn.Linear(width, 3 * PATCH**2)

    def forward(self, noisy: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """noisy [B, 3, H, W], t [B], words [B, WORDS] -> [B, 3, H, W]."""
        rows, columns = noisy.shape[-2] // PATCH, noisy.shape[-1] // PATCH
        dtype = self.patch_in.weight.dtype
        ids = grid_ids(rows, columns, device=noisy.device)[:, 1:] / torch.tensor([rows, columns], device=noisy.device)
        place = self.place(rearrange(waves(ids, 2), "l a f -> l (a f)").to(dtype))
        told = self.time(waves(t, 4).to(dtype)) + self.words(words.to(dtype))
        x = self.patch_in(pack(noisy, PATCH).to(dtype)) + place + told[:, None]
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        return unpack(self.patch_out(self.norm(x)), rows * PATCH, columns * PATCH, PATCH)


class PixelBlock(nn.Module):
    """Attention and a multi-layer perceptron, each after a norm and around a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        q, k, v = rearrange(self.to_qkv(self.norm_a(x)), "b l (n h d) -> n b h l d", n=3, d=16)
        seen = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.to_out(rearrange(seen, "b h l d -> b l (h d)"))
        return x + self.down(functional.gelu(self.up(self.norm_b(x))))


def waves(x: Tensor, count: int) -> Tensor:
    """[...] in 0..1 -> [..., 2 * count]: sines and cosines of 1, 2, 4, ... half turns."""
    angles = x[..., None] * torch.pi * 2.0 ** torch.arange(count, device=x.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
