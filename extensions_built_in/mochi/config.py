"""`arch: mochi`: Mochi 1, text to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.mochi.family import MochiFamily
    from toolkit.context import Context


class Mochi(ModelPlugin):
    """Mochi 1: `genmo/mochi-1-preview` or a folder like it."""

    example: ClassVar[str] = "genmo/mochi-1-preview"
    recognized_by = {"_class_name": "MochiPipeline"}

    arch: Literal["mochi"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> MochiFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.mochi.family import MochiFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return MochiFamily(parts)
