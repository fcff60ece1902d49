"""`arch: sana`: Sana 1.0 and 1.5."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.sana.keys import SANA_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.sana.family import SanaFamily
    from toolkit.context import Context


class Sana(ModelPlugin):
    """Sana: `Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers`, the 1.5 versions, or a folder like them."""

    example: ClassVar[str] = "Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers"
    recognized_by = {"_class_name": "SanaPipeline"}
    key_names: ClassVar[KeyNames] = SANA_KEYS

    arch: Literal["sana"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> SanaFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.sana.family import SanaFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return SanaFamily(parts)
