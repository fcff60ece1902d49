"""`arch: krea2`: Krea 2."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.krea2.keys import KREA2_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.krea2.family import Krea2Family
    from toolkit.context import Context


class Krea2(ModelPlugin):
    """Krea 2: `krea/Krea-2-Raw`, `krea/Krea-2-Turbo` or a folder like them."""

    example: ClassVar[str] = "krea/Krea-2-Raw"
    recognized_by = {"_class_name": "Krea2Pipeline"}
    key_names: ClassVar[KeyNames] = KREA2_KEYS

    arch: Literal["krea2"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Krea2Family:
        """The family with its parts unloaded."""
        from extensions_built_in.krea2.family import Krea2Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser="transformer",
            text_encoders=("text_encoder",),
            tokenizers=("tokenizer",),
            checkpointing=checkpointing,
        )
        return Krea2Family(parts)
