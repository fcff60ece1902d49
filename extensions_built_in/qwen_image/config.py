"""`arch: qwen_image`, `qwen_image_edit`, `qwen_image_edit_plus`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.qwen_image.keys import QWEN_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, idle, works

if TYPE_CHECKING:
    from extensions_built_in.qwen_image.family import QwenImageEditFamily, QwenImageEditPlusFamily, QwenImageFamily
    from toolkit.context import Context
    from toolkit.models.parts import Parts


class EditOptions(Section):
    """`model.model_kwargs` of the editing checkpoints."""

    match_target_res: bool = works(False, "Encode references at about as many pixels as the target has.")
    control_image_max_pixels: int = works(
        1024 * 1024, "Otherwise they are encoded at about so many pixels, as the checkpoint was trained.", ge=32 * 32
    )
    vlm_max_pixels: int = works(
        384 * 384,
        "qwen_image_edit_plus: about so many pixels of a reference are shown to the text encoder.",
        ge=28 * 28,
    )
    kv_cache: bool = idle(False, "it speeds up sampling of distilled checkpoints only")


class QwenImage(ModelPlugin):
    """Qwen-Image: `Qwen/Qwen-Image`, `Qwen/Qwen-Image-2512` or a folder like them."""

    example: ClassVar[str] = "Qwen/Qwen-Image"
    recognized_by = {"_class_name": "QwenImagePipeline"}
    key_names: ClassVar[KeyNames] = QWEN_KEYS

    arch: Literal["qwen_image"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> QwenImageFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.qwen_image.family import QwenImageFamily

        return QwenImageFamily(_parts(self, context, checkpointing))


class QwenImageEdit(ModelPlugin):
    """Qwen-Image-Edit: `Qwen/Qwen-Image-Edit` or a folder like it; one reference picture."""

    example: ClassVar[str] = "Qwen/Qwen-Image-Edit"
    recognized_by = {"_class_name": "QwenImageEditPipeline"}
    key_names: ClassVar[KeyNames] = QWEN_KEYS

    arch: Literal["qwen_image_edit"]
    model_kwargs: EditOptions = works(EditOptions, "Options of the family.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> QwenImageEditFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.qwen_image.family import QwenImageEditFamily

        options = self.model_kwargs
        area = None if options.match_target_res else options.control_image_max_pixels
        return QwenImageEditFamily(_parts(self, context, checkpointing), area, options.control_image_max_pixels)


class QwenImageEditPlus(ModelPlugin):
    """Qwen-Image-Edit-Plus: `Qwen/Qwen-Image-Edit-2509`, `-2511` or a folder like them; one to three references."""

    example: ClassVar[str] = "Qwen/Qwen-Image-Edit-2509"
    recognized_by = {"_class_name": "QwenImageEditPlusPipeline"}
    key_names: ClassVar[KeyNames] = QWEN_KEYS

    arch: Literal["qwen_image_edit_plus"]
    model_kwargs: EditOptions = works(EditOptions, "Options of the family.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> QwenImageEditPlusFamily:
        """The family with its parts unloaded."""
        from extensions_built_in.qwen_image.family import QwenImageEditPlusFamily

        options = self.model_kwargs
        area = None if options.match_target_res else options.control_image_max_pixels
        return QwenImageEditPlusFamily(_parts(self, context, checkpointing), area, options.vlm_max_pixels)


def _parts(model: ModelPlugin, context: Context, checkpointing: bool) -> Parts:
    from transformers import Qwen2VLImageProcessorPil

    from toolkit.models.loading import make_parts

    return make_parts(
        model,
        context,
        checkpointing=checkpointing,
        # the class that the editing checkpoints name needs torchvision
        classes={"processor": Qwen2VLImageProcessorPil},
    )
