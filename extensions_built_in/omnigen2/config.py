"""`arch: omnigen2`: OmniGen2."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.omnigen2.keys import OMNIGEN2_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, works

if TYPE_CHECKING:
    from extensions_built_in.omnigen2.family import OmniGen2Family
    from toolkit.context import Context


class OmniGen2Options(Section):
    """`model.model_kwargs` of OmniGen2."""

    use_image_refiner: bool = works(False, "Adapt also the layers that only references pass.")
    control_image_max_pixels: int = works(1024 * 1024, "References with more pixels are made smaller.", ge=16 * 16)


class OmniGen2(ModelPlugin):
    """OmniGen2: `OmniGen2/OmniGen2` or a folder like it; up to five reference pictures."""

    example: ClassVar[str] = "OmniGen2/OmniGen2"
    recognized_by = {"_class_name": "OmniGen2Pipeline"}
    key_names: ClassVar[KeyNames] = OMNIGEN2_KEYS

    arch: Literal["omnigen2"]
    model_kwargs: OmniGen2Options = works(OmniGen2Options, "Options of OmniGen2.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> OmniGen2Family:
        """The family with its parts unloaded."""
        from transformers import Qwen2Tokenizer

        from extensions_built_in.omnigen2.family import OmniGen2Family
        from extensions_built_in.omnigen2.model import OmniGen2Transformer2DModel
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            text_encoders=("mllm",),
            tokenizers=("processor",),
            checkpointing=checkpointing,
            classes={"transformer": OmniGen2Transformer2DModel, "processor": Qwen2Tokenizer},
        )
        options = self.model_kwargs
        return OmniGen2Family(parts, options.use_image_refiner, options.control_image_max_pixels)
