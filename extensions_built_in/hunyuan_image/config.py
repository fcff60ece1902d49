"""`arch: hunyuan_image`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.hunyuan_image.family import HunyuanImageFamily
    from toolkit.context import Context


class HunyuanImage(ModelPlugin):
    """HunyuanImage 2.1, for pictures of 2048 x 2048: `hunyuanvideo-community/HunyuanImage-2.1-Diffusers`."""

    example: ClassVar[str] = "hunyuanvideo-community/HunyuanImage-2.1-Diffusers"
    recognized_by = {"_class_name": "HunyuanImagePipeline"}

    arch: Literal["hunyuan_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> HunyuanImageFamily:
        """The family with its parts unloaded; there is no guidance embedding to bypass."""
        from extensions_built_in.hunyuan_image.family import HunyuanImageFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            text_encoders=("text_encoder_2", "text_encoder"),
            tokenizers=("tokenizer_2", "tokenizer"),
            checkpointing=checkpointing,
        )
        return HunyuanImageFamily(parts)
