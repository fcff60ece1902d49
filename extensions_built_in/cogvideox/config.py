"""`arch: cogvideox`: CogVideoX 2B and 5B, text to video."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.cogvideox.family import CogVideoXFamily
    from toolkit.context import Context


class CogVideoX(ModelPlugin):
    """CogVideoX 1.0: `zai-org/CogVideoX-2b`, `zai-org/CogVideoX-5b` or a folder like them."""

    flow: ClassVar[bool] = False
    example: ClassVar[str] = "zai-org/CogVideoX-2b"
    recognized_by = {"_class_name": "CogVideoXPipeline"}

    arch: Literal["cogvideox"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> CogVideoXFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.cogvideox.family import CogVideoXFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return CogVideoXFamily(parts)
