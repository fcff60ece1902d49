"""`arch: ltx`: LTX-Video 0.9, text or first frame to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.ltx.keys import LTX_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.ltx.family import LTXFamily
    from toolkit.context import Context


class LTX(ModelPlugin):
    """LTX-Video: `Lightricks/LTX-Video` (0.9), `Lightricks/LTX-Video-0.9.5` or a folder like them."""

    example: ClassVar[str] = "Lightricks/LTX-Video"
    recognized_by = {"_class_name": "LTXPipeline"}
    key_names: ClassVar[KeyNames] = LTX_KEYS

    arch: Literal["ltx"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> LTXFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.ltx.family import LTXFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return LTXFamily(parts)
