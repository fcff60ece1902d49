"""`arch: bria`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.bria.family import BriaFamily
    from toolkit.context import Context


class Bria(ModelPlugin):
    """BRIA 3, a FLUX-like model trained on licensed pictures: `briaai/BRIA-3.2`."""

    example: ClassVar[str] = "briaai/BRIA-3.2"
    recognized_by = {"_class_name": "BriaPipeline"}

    arch: Literal["bria"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> BriaFamily:
        """The family with its parts unloaded; there is no guidance embedding to bypass."""
        from extensions_built_in.bria.family import BriaFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return BriaFamily(parts)
