"""`arch: zimage`: Z-Image, Z-Image-Turbo and De-Turbo."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.zimage.keys import ZIMAGE_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin

if TYPE_CHECKING:
    from extensions_built_in.zimage.family import ZImageFamily
    from toolkit.context import Context


class ZImage(ModelPlugin):
    """Z-Image: `Tongyi-MAI/Z-Image`, `Tongyi-MAI/Z-Image-Turbo`, `ostris/Z-Image-De-Turbo` or a folder like them."""

    example: ClassVar[str] = "Tongyi-MAI/Z-Image"
    recognized_by = {"_class_name": "ZImagePipeline"}
    key_names: ClassVar[KeyNames] = ZIMAGE_KEYS
    training_adapters = {
        "z-image-turbo": "ostris/zimage_turbo_training_adapter/zimage_turbo_training_adapter_v2.safetensors"
    }

    arch: Literal["zimage"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> ZImageFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.zimage.family import ZImageFamily
        from toolkit.models.loading import make_parts

        parts = make_parts(self, context, checkpointing=checkpointing)
        return ZImageFamily(parts)
