"""`arch: lumina2`: Lumina-Image 2.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.lumina2.keys import LUMINA2_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.lumina2.family import Lumina2Family
    from toolkit.context import Context


class Lumina2(ModelPlugin):
    """Lumina-Image 2.0: `Alpha-VLLM/Lumina-Image-2.0` or a folder like it."""

    example: ClassVar[str] = "Alpha-VLLM/Lumina-Image-2.0"
    recognized_by = {"_class_name": "Lumina2Pipeline"}
    key_names: ClassVar[KeyNames] = LUMINA2_KEYS

    arch: Literal["lumina2"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Lumina2Family:
        """The family with its parts unloaded."""
        from extensions_built_in.lumina2.family import Lumina2Family
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return Lumina2Family(parts)
