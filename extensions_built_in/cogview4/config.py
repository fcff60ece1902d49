"""`arch: cogview4`: CogView4."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.cogview4.keys import COGVIEW4_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.cogview4.family import CogView4Family
    from toolkit.context import Context


class CogView4(ModelPlugin):
    """CogView4: `zai-org/CogView4-6B` or a checkpoint like it."""

    example: ClassVar[str] = "zai-org/CogView4-6B"
    recognized_by = {"_class_name": "CogView4Pipeline"}
    key_names: ClassVar[KeyNames] = COGVIEW4_KEYS

    arch: Literal["cogview4"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> CogView4Family:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.cogview4.family import CogView4Family
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return CogView4Family(parts)
