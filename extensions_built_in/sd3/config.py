"""`arch: sd3`: Stable Diffusion 3 and 3.5, medium and large."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.sd3.keys import SD3_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.sd3.family import Sd3Family
    from toolkit.context import Context


class Sd3(ModelPlugin):
    """Stable Diffusion 3: `stabilityai/stable-diffusion-3.5-large`, `-3.5-medium`, `-3-medium-diffusers`."""

    example: ClassVar[str] = "stabilityai/stable-diffusion-3.5-medium"
    recognized_by = {"_class_name": "StableDiffusion3Pipeline"}
    key_names: ClassVar[KeyNames] = SD3_KEYS

    arch: Literal["sd3"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Sd3Family:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.sd3.family import ENCODERS, TOKENIZERS, Sd3Family
        from toolkit.models.loading import make_parts

        parts = make_parts(
            self,
            context,
            text_encoders=ENCODERS,
            tokenizers=TOKENIZERS,
            checkpointing=checkpointing,
        )
        return Sd3Family(parts)
