"""`arch: nucleus_image`: Nucleus-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.nucleus_image.family import NucleusImageFamily
    from toolkit.context import Context


class NucleusImage(ModelPlugin):
    """Nucleus-Image: `NucleusAI/Nucleus-Image` or a folder like it."""

    example: ClassVar[str] = "NucleusAI/Nucleus-Image"
    recognized_by = {"_class_name": "NucleusMoEImagePipeline"}

    arch: Literal["nucleus_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> NucleusImageFamily:
        """The family with its parts unloaded."""
        from transformers import AutoTokenizer

        from extensions_built_in.nucleus_image.family import NucleusImageFamily
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
        return NucleusImageFamily(parts)
