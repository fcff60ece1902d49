"""`arch: hunyuan_video_15`: HunyuanVideo 1.5, text to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.hunyuan_video_15.family import HunyuanVideo15Family
    from toolkit.context import Context


class HunyuanVideo15(ModelPlugin):
    """HunyuanVideo 1.5: `hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v` or a folder like it."""

    example: ClassVar[str] = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v"
    recognized_by = {"_class_name": "HunyuanVideo15Pipeline"}

    arch: Literal["hunyuan_video_15"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> HunyuanVideo15Family:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.hunyuan_video_15.family import HunyuanVideo15Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            # the main text encoder comes last
            text_encoders=("text_encoder_2", "text_encoder"),
            tokenizers=("tokenizer_2", "tokenizer"),
            checkpointing=checkpointing,
        )
        return HunyuanVideo15Family(parts)
