"""`arch: auraflow`: AuraFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.auraflow.keys import AURAFLOW_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.auraflow.family import AuraFlowFamily
    from toolkit.context import Context


class AuraFlow(ModelPlugin):
    """AuraFlow: `fal/AuraFlow-v0.3` or a checkpoint like it."""

    example: ClassVar[str] = "fal/AuraFlow-v0.3"
    recognized_by = {"_class_name": "AuraFlowPipeline"}
    key_names: ClassVar[KeyNames] = AURAFLOW_KEYS

    arch: Literal["auraflow"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> AuraFlowFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.auraflow.family import AuraFlowFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return AuraFlowFamily(parts)
