"""`arch: ernie_image`: ERNIE-Image."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.ernie_image.keys import ERNIE_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.ernie_image.family import ErnieImageFamily
    from toolkit.context import Context


class ErnieImage(ModelPlugin):
    """ERNIE-Image: `baidu/ERNIE-Image` or a folder like it. Its prompt enhancer is not used."""

    example: ClassVar[str] = "baidu/ERNIE-Image"
    recognized_by = {"_class_name": "ErnieImagePipeline"}
    key_names: ClassVar[KeyNames] = ERNIE_KEYS

    arch: Literal["ernie_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> ErnieImageFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.ernie_image.family import ErnieImageFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return ErnieImageFamily(parts)
