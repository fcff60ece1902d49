"""`arch: longcat_image`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.longcat_image.family import LongCatImageFamily
    from toolkit.context import Context


class LongCatImage(ModelPlugin):
    """LongCat-Image, a FLUX-like model for English and Chinese: `meituan-longcat/LongCat-Image`."""

    example: ClassVar[str] = "meituan-longcat/LongCat-Image"
    recognized_by = {"_class_name": "LongCatImagePipeline"}

    arch: Literal["longcat_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> LongCatImageFamily:
        """The family with its parts unloaded; there is no guidance embedding to bypass."""
        from extensions_built_in.longcat_image.family import LongCatImageFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return LongCatImageFamily(parts)
