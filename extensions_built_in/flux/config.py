"""`arch: flux`: FLUX.1 dev and schnell, and the embedded `builtin:tiny-flux`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.flux.family import FluxFamily
    from toolkit.context import Context


class Flux(ModelPlugin):
    """FLUX.1: `black-forest-labs/FLUX.1-dev`, `black-forest-labs/FLUX.1-schnell` or a folder like them."""

    example: ClassVar[str] = "black-forest-labs/FLUX.1-dev"

    arch: Literal["flux"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.flux.family import FluxFamily, allow_bypass
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            denoiser="transformer",
            text_encoders=("text_encoder", "text_encoder_2"),
            tokenizers=("tokenizer", "tokenizer_2"),
            checkpointing=checkpointing,
            prepare_denoiser=allow_bypass,
        )
        return FluxFamily(parts, bypass_guidance)
