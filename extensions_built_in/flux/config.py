"""The archs that share FLUX.1's network: `flux`, `flex2`, `flux_kontext`, `flux_control` and `flux_fill`.

`flex1` is read as `flux`: Flex.1 is the same network with fewer layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.flux.keys import FLUX_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, planned, works

if TYPE_CHECKING:
    from extensions_built_in.flux.family import FluxFamily
    from extensions_built_in.flux.variants import Variant
    from toolkit.context import Context


class Flux(ModelPlugin):
    """FLUX.1: `black-forest-labs/FLUX.1-dev`, `black-forest-labs/FLUX.1-schnell`, Flex.1, or a folder like them."""

    example: ClassVar[str] = "black-forest-labs/FLUX.1-dev"
    recognized_by = {"_class_name": "FluxPipeline"}
    key_names: ClassVar[KeyNames] = FLUX_KEYS
    training_adapters = {"schnell": "ostris/FLUX.1-schnell-training-adapter"}

    arch: Literal["flux"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.flux.variants import FLUX

        return build_variant(self, context, FLUX, checkpointing, bypass_guidance)


class Flex2Kwargs(Section):
    """Options of Flex.2. ai-toolkit's random masks are drawn at every step; here conditions are encoded once."""

    invert_inpaint_mask_chance: float = planned(0.0, "How often kept and painted areas change places.")
    inpaint_dropout: float = planned(0.0, "How often a sample is trained without its picture to inpaint.")
    control_dropout: float = planned(0.0, "How often a sample is trained without its control picture.")
    inpaint_random_chance: float = planned(0.0, "How often a random mask replaces the given one.")
    random_blur_mask: bool = planned(False, "Blur masks by random amounts.")
    random_dialate_mask: bool = planned(False, "Grow masks by random amounts.")
    do_random_inpainting: bool = planned(False, "Draw a random mask where a sample has none.")


class Flex2(ModelPlugin):
    """Flex.2, which takes a control picture and a picture to inpaint (one with an alpha channel) as channels."""

    example: ClassVar[str] = "ostris/Flex.2-preview"
    key_names: ClassVar[KeyNames] = FLUX_KEYS

    arch: Literal["flex2"]
    model_kwargs: Flex2Kwargs = works(Flex2Kwargs, "Options of Flex.2.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """As for FLUX.1."""
        from extensions_built_in.flux.variants import FLEX2

        return build_variant(self, context, FLEX2, checkpointing, bypass_guidance)


class KontextKwargs(Section):
    """Options of FLUX.1 Kontext."""

    match_target_res: bool = works(False, "Resize reference pictures to the area of the target.")
    control_image_max_pixels: int = works(1024 * 1024, "Reference pictures with more pixels are made smaller.", gt=0)


class FluxKontext(ModelPlugin):
    """FLUX.1 Kontext, which edits a reference picture as the prompt says."""

    example: ClassVar[str] = "black-forest-labs/FLUX.1-Kontext-dev"
    recognized_by = {"_class_name": "FluxKontextPipeline"}
    key_names: ClassVar[KeyNames] = FLUX_KEYS

    arch: Literal["flux_kontext"]
    model_kwargs: KontextKwargs = works(KontextKwargs, "Options of FLUX.1 Kontext.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """As for FLUX.1."""
        from extensions_built_in.flux.variants import kontext

        options = self.model_kwargs
        variant = kontext(options.control_image_max_pixels, options.match_target_res)
        return build_variant(self, context, variant, checkpointing, bypass_guidance)


class FluxControl(ModelPlugin):
    """FLUX.1 Depth and Canny, and others that take the latents of one control picture as channels."""

    example: ClassVar[str] = "black-forest-labs/FLUX.1-Depth-dev"
    recognized_by = {"_class_name": "FluxControlPipeline"}
    key_names: ClassVar[KeyNames] = FLUX_KEYS

    arch: Literal["flux_control"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """As for FLUX.1."""
        from extensions_built_in.flux.variants import CONTROL

        return build_variant(self, context, CONTROL, checkpointing, bypass_guidance)


class FluxFill(ModelPlugin):
    """FLUX.1 Fill, which paints what is transparent in a picture."""

    example: ClassVar[str] = "black-forest-labs/FLUX.1-Fill-dev"
    recognized_by = {"_class_name": "FluxFillPipeline"}
    key_names: ClassVar[KeyNames] = FLUX_KEYS

    arch: Literal["flux_fill"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> FluxFamily:
        """As for FLUX.1."""
        from extensions_built_in.flux.variants import FILL

        return build_variant(self, context, FILL, checkpointing, bypass_guidance)


def build_variant(
    model: ModelPlugin, context: Context, variant: Variant, checkpointing: bool, bypass_guidance: bool
) -> FluxFamily:
    """The family of one variant."""
    from extensions_built_in.flux.family import FluxFamily, allow_bypass
    from toolkit.models.loading import make_parts

    parts = make_parts(
        model,
        context,
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        checkpointing=checkpointing,
        prepare_denoiser=allow_bypass,
    )
    return FluxFamily(parts, bypass_guidance, variant)
