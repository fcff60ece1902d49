"""`arch: pixart` and `pixart_sigma`: PixArt-alpha and PixArt-Sigma."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.pixart.keys import PIXART_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.pixart.family import PixArtFamily
    from toolkit.context import Context

PIPELINES = {"pixart": ("PixArtAlphaPipeline", 120), "pixart_sigma": ("PixArtSigmaPipeline", 300)}
"""arch -> (its diffusers pipeline, how many tokens of a caption it takes)."""


class PixArt(ModelPlugin):
    """PixArt-alpha: `PixArt-alpha/PixArt-XL-2-1024-MS` or a checkpoint like it."""

    flow: ClassVar[bool] = False
    example: ClassVar[str] = "PixArt-alpha/PixArt-XL-2-1024-MS"
    recognized_by = {"_class_name": "PixArtAlphaPipeline"}
    key_names: ClassVar[KeyNames] = PIXART_KEYS

    arch: Literal["pixart", "pixart_sigma"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> PixArtFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.pixart.family import PixArtFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        pipeline, text_length = PIPELINES[self.arch]
        return PixArtFamily(parts, pipeline, text_length)


class PixArtSigma(PixArt):
    """PixArt-Sigma: `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS` or a checkpoint like it."""

    example: ClassVar[str] = "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"
    recognized_by = {"_class_name": "PixArtSigmaPipeline"}

    arch: Literal["pixart_sigma"]
