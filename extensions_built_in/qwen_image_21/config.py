"""`arch: qwen_image_21`: Qwen-Image 2.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.qwen_image_21.family import QwenImage21Family
    from toolkit.context import Context


class QwenImage21(ModelPlugin):
    """Qwen-Image 2.1: `Qwen/Qwen-Image-2.1` or a folder like it."""

    example: ClassVar[str] = "Qwen/Qwen-Image-2.1"
    recognized_by = {"_class_name": "QwenImage21Pipeline"}

    arch: Literal["qwen_image_21"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> QwenImage21Family:
        """The family with its parts unloaded."""
        from transformers import AutoTokenizer

        from extensions_built_in.qwen_image_21.family import QwenImage21Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser="transformer",
            text_encoders=("text_encoder",),
            tokenizers=("processor",),
            checkpointing=checkpointing,
            # of the processor only the tokenizer is used: pictures are not shown to the text encoder
            classes={"processor": AutoTokenizer},
        )
        return QwenImage21Family(parts)
