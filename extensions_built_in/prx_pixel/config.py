"""`arch: prx_pixel`: PRX Pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.prx_pixel.family import PRXPixelFamily
    from toolkit.context import Context


class PRXPixel(ModelPlugin):
    """PRX Pixel: `Photoroom/prxpixel-t2i` or a folder like it."""

    example: ClassVar[str] = "Photoroom/prxpixel-t2i"
    recognized_by = {"_class_name": "PRXPixelPipeline"}

    arch: Literal["prx_pixel"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> PRXPixelFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.prx_pixel.family import PRXPixelFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser="transformer",
            text_encoders=("text_encoder",),
            tokenizers=("tokenizer",),
            checkpointing=checkpointing,
        )
        return PRXPixelFamily(parts)
