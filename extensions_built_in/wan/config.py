"""Wan and what was made of it: `wan21(_i2v)`, `wan22_5b`, `wan22_14b(_i2v)`, `skyreels_v2(_i2v)`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from extensions_built_in.wan.keys import WAN_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.config.plugins import ModelPlugin, Remarked
from toolkit.config.section import Section, works

if TYPE_CHECKING:
    from extensions_built_in.wan.family import WanFamily
    from toolkit.context import Context

I2V_PIPELINE = "WanImageToVideoPipeline"


class Wan21(ModelPlugin):
    """Wan 2.1 text to video: `Wan-AI/Wan2.1-T2V-1.3B-Diffusers`, `Wan-AI/Wan2.1-T2V-14B-Diffusers`."""

    example: ClassVar[str] = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    recognized_by = {"_class_name": "WanPipeline"}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["wan21"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        return build_wan(self, context, checkpointing, "wan_2.1")


class Wan21I2V(ModelPlugin):
    """Wan 2.1 image to video: `Wan-AI/Wan2.1-I2V-14B-480P-Diffusers`, `Wan-AI/Wan2.1-I2V-14B-720P-Diffusers`."""

    example: ClassVar[str] = "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"
    recognized_by = {"_class_name": "WanImageToVideoPipeline"}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["wan21_i2v"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        return build_wan(self, context, checkpointing, "wan_2.1", I2V_PIPELINE)


class Wan22Small(ModelPlugin):
    """Wan 2.2 TI2V-5B, text or first frame to video: `Wan-AI/Wan2.2-TI2V-5B-Diffusers`."""

    example: ClassVar[str] = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"
    recognized_by = {"_class_name": "WanPipeline", "expand_timesteps": True}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["wan22_5b"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        return build_wan(self, context, checkpointing, "wan_2.2_5b", time_per_token=True)


class ExpertChoice(Section):
    """`model_kwargs` of the two-expert models of Wan 2.2: which of the two transformers is trained."""

    train_high_noise: bool = works(True, "Train the expert for much noise (file `_high_noise`).")
    train_low_noise: bool = works(True, "Train the expert for little noise (file `_low_noise`).")

    def contradictions(self) -> Iterable[Remarked]:
        """One of them has to be trained."""
        if not (self.train_high_noise or self.train_low_noise):
            yield ("train_low_noise",), "nothing is trained: train_high_noise is off too"


class Wan22(ModelPlugin):
    """Wan 2.2 A14B text to video, two experts: `Wan-AI/Wan2.2-T2V-A14B-Diffusers`."""

    example: ClassVar[str] = "Wan-AI/Wan2.2-T2V-A14B-Diffusers"
    recognized_by = {"_class_name": "WanPipeline", "transformer_2": ["diffusers", "WanTransformer3DModel"]}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["wan22_14b"]
    model_kwargs: ExpertChoice = works(ExpertChoice, "Which of the two experts is trained.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformers' blocks."""
        return build_wan(self, context, checkpointing, "wan_2.2_14b", boundary=0.875, experts=self.model_kwargs)


class Wan22I2V(ModelPlugin):
    """Wan 2.2 A14B image to video, two experts: `Wan-AI/Wan2.2-I2V-A14B-Diffusers`."""

    example: ClassVar[str] = "Wan-AI/Wan2.2-I2V-A14B-Diffusers"
    recognized_by = {"_class_name": "WanImageToVideoPipeline", "transformer_2": ["diffusers", "WanTransformer3DModel"]}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["wan22_14b_i2v"]
    model_kwargs: ExpertChoice = works(ExpertChoice, "Which of the two experts is trained.")  # type: ignore[assignment]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformers' blocks."""
        return build_wan(
            self, context, checkpointing, "wan_2.2_14b", I2V_PIPELINE, boundary=0.9, experts=self.model_kwargs
        )


class SkyReelsV2(ModelPlugin):
    """SkyReels V2 text to video, a Wan 2.1: `Skywork/SkyReels-V2-T2V-14B-540P-Diffusers`."""

    example: ClassVar[str] = "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers"
    recognized_by = {"_class_name": "SkyReelsV2Pipeline"}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["skyreels_v2"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        return build_wan(self, context, checkpointing, "skyreels_v2", pipeline="SkyReelsV2Pipeline")


class SkyReelsV2I2V(ModelPlugin):
    """SkyReels V2 image to video, a Wan 2.1: `Skywork/SkyReels-V2-I2V-1.3B-540P-Diffusers`."""

    example: ClassVar[str] = "Skywork/SkyReels-V2-I2V-1.3B-540P-Diffusers"
    recognized_by = {"_class_name": "SkyReelsV2ImageToVideoPipeline"}
    key_names: ClassVar[KeyNames] = WAN_KEYS

    arch: Literal["skyreels_v2_i2v"]

    def build(self, context: Context, *, checkpointing: bool, bypass_guidance: bool) -> WanFamily:
        """The family with its parts unloaded; `checkpointing`: recompute activations of the transformer's blocks."""
        return build_wan(self, context, checkpointing, "skyreels_v2", pipeline="SkyReelsV2ImageToVideoPipeline")


def build_wan(
    model: ModelPlugin,
    context: Context,
    checkpointing: bool,
    base_model: str,
    pipeline: str = "WanPipeline",
    boundary: float | None = None,
    time_per_token: bool = False,
    experts: ExpertChoice | None = None,
) -> WanFamily:
    """The family of one variant: with a `boundary`, two experts share the times; see `WanFamily`."""
    import torch

    from extensions_built_in.wan.family import WanFamily
    from toolkit.models.loading import make_parts

    parts = make_parts(
        model,
        context,
        denoiser="transformer" if boundary is None else ("transformer", "transformer_2"),
        checkpointing=checkpointing,
        # the VAE's latents and CLIP's features drift visibly in 16 bits
        dtypes={"vae": torch.float32, "image_encoder": torch.float32},
    )
    chosen = experts or ExpertChoice()
    return WanFamily(
        parts,
        base_model,
        pipeline,
        boundary=boundary,
        time_per_token=time_per_token,
        high_noise=chosen.train_high_noise,
        low_noise=chosen.train_low_noise,
    )
