"""`arch: hunyuan_video`: HunyuanVideo, text to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.hunyuan_video.family import HunyuanVideoFamily
    from toolkit.context import Context


class HunyuanVideo(ModelPlugin):
    """HunyuanVideo: `hunyuanvideo-community/HunyuanVideo` or a folder like it."""

    example: ClassVar[str] = "hunyuanvideo-community/HunyuanVideo"
    recognized_by = {"_class_name": "HunyuanVideoPipeline"}

    arch: Literal["hunyuan_video"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> HunyuanVideoFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.hunyuan_video.family import HunyuanVideoFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            # the main text encoder comes last
            text_encoders=("text_encoder_2", "text_encoder"),
            tokenizers=("tokenizer_2", "tokenizer"),
            checkpointing=checkpointing,
        )
        return HunyuanVideoFamily(parts)
