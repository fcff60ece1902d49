"""`arch: kandinsky5`: Kandinsky 5, text to image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.kandinsky5.family import Kandinsky5Family
    from toolkit.context import Context


class Kandinsky5(ModelPlugin):
    """Kandinsky 5 for pictures: `kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers` or a folder like it."""

    example: ClassVar[str] = "kandinskylab/Kandinsky-5.0-T2I-Lite-sft-Diffusers"
    recognized_by = {"_class_name": "Kandinsky5T2IPipeline"}

    arch: Literal["kandinsky5"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Kandinsky5Family:
        """The family with its parts unloaded."""
        from transformers import AutoTokenizer

        from extensions_built_in.kandinsky5.family import Kandinsky5Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser="transformer",
            text_encoders=("text_encoder_2", "text_encoder"),
            tokenizers=("tokenizer_2", "tokenizer"),
            checkpointing=checkpointing,
            # of the processor only the tokenizer is used: pictures are not shown to the text encoder
            classes={"tokenizer": AutoTokenizer},
        )
        return Kandinsky5Family(parts)
