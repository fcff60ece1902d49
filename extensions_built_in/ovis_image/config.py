"""`arch: ovis_image`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.ovis_image.family import OvisImageFamily
    from toolkit.context import Context


class OvisImage(ModelPlugin):
    """Ovis-Image, a FLUX-like model that is good at lettering: `AIDC-AI/Ovis-Image-7B`."""

    example: ClassVar[str] = "AIDC-AI/Ovis-Image-7B"
    recognized_by = {"_class_name": "OvisImagePipeline"}

    arch: Literal["ovis_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> OvisImageFamily:
        """The family with its parts unloaded; there is no guidance embedding to bypass."""
        from extensions_built_in.ovis_image.family import OvisImageFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return OvisImageFamily(parts)
