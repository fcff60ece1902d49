"""`arch: ltx2`: the video stream of LTX-2, text or first frame to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.ltx2.keys import LTX2_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.ltx2.family import LTX2Family
    from toolkit.context import Context


class LTX2(ModelPlugin):
    """LTX-2 (video without sound): `Lightricks/LTX-2` or a folder like it."""

    example: ClassVar[str] = "Lightricks/LTX-2"
    recognized_by = {"_class_name": "LTX2Pipeline"}
    key_names: ClassVar[KeyNames] = LTX2_KEYS

    arch: Literal["ltx2", "ltx2.3"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> LTX2Family:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.ltx2.family import LTX2Family
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return LTX2Family(parts)
