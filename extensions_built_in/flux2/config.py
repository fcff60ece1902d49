"""The archs of FLUX.2: `flux2` (dev), `flux2_klein_4b` and `flux2_klein_9b`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.flux2.keys import FLUX2_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin
from toolkit.config.section import Section, planned, works

if TYPE_CHECKING:
    from extensions_built_in.flux2.family import Flux2Family
    from extensions_built_in.flux2.prompts import TextEncoding
    from toolkit.context import Context


class Flux2Kwargs(Section):
    """Options of FLUX.2."""

    match_target_res: bool = works(False, "Resize reference pictures to the area of the target.")
    control_image_max_pixels: int = works(1024 * 1024, "Reference pictures with more pixels are made smaller.", gt=0)
    kv_cache: bool = planned(False, "Compute the references once per picture, for checkpoints trained to allow it.")


class Flux2(ModelPlugin):
    """FLUX.2 dev: guidance-distilled, reads prompts with Mistral, takes reference pictures."""

    example: ClassVar[str] = "black-forest-labs/FLUX.2-dev"
    recognized_by = {"_class_name": "Flux2Pipeline"}
    key_names: ClassVar[KeyNames] = FLUX2_KEYS

    arch: Literal["flux2"]
    model_kwargs: Flux2Kwargs = works(Flux2Kwargs, "Options of FLUX.2.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Flux2Family:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        from extensions_built_in.flux2.prompts import MISTRAL

        return build_family(self, self.model_kwargs, MISTRAL, context, checkpointing, bypass_guidance)


class Flux2Klein4B(ModelPlugin):
    """FLUX.2 klein 4B: small, reads prompts with Qwen3, takes reference pictures."""

    example: ClassVar[str] = "black-forest-labs/FLUX.2-klein-base-4B"
    recognized_by = {"_class_name": "Flux2KleinPipeline", "transformer.num_attention_heads": 24}
    key_names: ClassVar[KeyNames] = FLUX2_KEYS

    arch: Literal["flux2_klein_4b"]
    model_kwargs: Flux2Kwargs = works(Flux2Kwargs, "Options of FLUX.2.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Flux2Family:
        """As for FLUX.2 dev."""
        from extensions_built_in.flux2.prompts import QWEN3

        return build_family(self, self.model_kwargs, QWEN3, context, checkpointing, bypass_guidance)


class Flux2Klein9B(ModelPlugin):
    """FLUX.2 klein 9B: as klein 4B, but larger."""

    example: ClassVar[str] = "black-forest-labs/FLUX.2-klein-base-9B"
    recognized_by = {"_class_name": "Flux2KleinPipeline", "transformer.num_attention_heads": 32}
    key_names: ClassVar[KeyNames] = FLUX2_KEYS

    arch: Literal["flux2_klein_9b"]
    model_kwargs: Flux2Kwargs = works(Flux2Kwargs, "Options of FLUX.2.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> Flux2Family:
        """As for FLUX.2 dev."""
        from extensions_built_in.flux2.prompts import QWEN3

        return build_family(self, self.model_kwargs, QWEN3, context, checkpointing, bypass_guidance)


def build_family(
    model: ModelPlugin,
    options: Flux2Kwargs,
    text: TextEncoding,
    context: Context,
    checkpointing: bool,
    bypass_guidance: bool,
) -> Flux2Family:
    """The family of one arch."""
    from transformers import AutoTokenizer

    from extensions_built_in.flux2.family import Flux2Family
    from toolkit.models.loading import make_parts

    parts = make_parts(
        model,
        context,
        checkpointing=checkpointing,
        # dev's is part of a processor, which cannot be built without what it needs for pictures
        classes={"tokenizer": AutoTokenizer},
    )
    return Flux2Family(
        parts,
        text,
        base_model=model.arch,
        max_pixels=options.control_image_max_pixels,
        match_target=options.match_target_res,
        bypass_guidance=bypass_guidance,
    )
