"""`arch: hidream`: HiDream-I1."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.hidream.keys import HIDREAM_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, works

if TYPE_CHECKING:
    from extensions_built_in.hidream.family import HiDreamFamily
    from toolkit.context import Context
    from toolkit.models.parts import Parts


LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


class HiDreamOptions(Section):
    """`model.model_kwargs` of HiDream-I1."""

    llama_model_path: str | None = works(
        None, f"The Llama text encoder; default: the checkpoint's own if it has one, else {LLAMA}."
    )


class HiDream(ModelPlugin):
    """HiDream-I1: `HiDream-ai/HiDream-I1-Full`, `-Dev`, `-Fast` or a folder like them."""

    example: ClassVar[str] = "HiDream-ai/HiDream-I1-Full"
    recognized_by = {"_class_name": "HiDreamImagePipeline"}
    key_names: ClassVar[KeyNames] = HIDREAM_KEYS

    arch: Literal["hidream"]
    model_kwargs: HiDreamOptions = works(HiDreamOptions, "Options of HiDream-I1.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> HiDreamFamily:
        """The family with its parts unloaded."""
        from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

        from extensions_built_in.hidream.family import HiDreamFamily
        from toolkit.models.loading import make_parts

        llama = self.te_name_or_path or self.model_kwargs.llama_model_path

        def parts_with(llama: str | None) -> Parts:
            return make_parts(
                self.model_copy(update={"te_name_or_path": llama}),
                context,
                text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4"),
                tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"),
                checkpointing=checkpointing,
                classes={"text_encoder_4": LlamaForCausalLM, "tokenizer_4": PreTrainedTokenizerFast} if llama else {},
            )

        parts = parts_with(llama)
        if not llama and not parts.source.has("text_encoder_4"):
            parts = parts_with(LLAMA)
        return HiDreamFamily(parts)
