"""`network`: what is trained beside a frozen model. The keys that network types share, and the contract of a type."""

from abc import abstractmethod
from typing import Any

from toolkit.config.section import Section, idle, planned, works


class LayerChoice(Section):
    """`network.network_kwargs`: which layers get a network, and options of the type."""

    only_if_contains: list[str] | None = works(
        None, "Train only layers whose name contains one of these texts (plain text, no globs)."
    )
    ignore_if_contains: list[str] | None = works(
        None, "Leave out layers whose name contains one of these texts; wins over only_if_contains."
    )
    full_if_contains: str | list[str] | None = planned(None, "Train these layers fully instead of by low rank.")
    parameter_threshold: int = planned(0, "Leave out layers with fewer parameters.")
    rank_dropout: float | None = planned(None, "Chance to drop a rank.")
    module_dropout: float | None = planned(None, "Chance to drop a whole layer's update.")
    attn_only: bool = idle(False, "ai-toolkit does not read it either")
    block_dims: list[int] | None = planned(None, "Rank per block.")
    block_alphas: list[float] | None = planned(None, "Alpha per block.")
    conv_block_dims: list[int] | None = planned(None, "Convolution rank per block.")
    conv_block_alphas: list[float] | None = planned(None, "Convolution alpha per block.")
    target_lin_modules: list[str] | None = planned(None, "Class names whose Linear layers are trained.")
    target_conv_modules: list[str] | None = planned(None, "Class names whose convolutions are trained.")
    use_bias: bool = planned(False, "Give the update a bias.")
    full_train_in_out: bool = planned(False, "Train the first and last layer fully.")


class LormModule(Section):
    """`network.lorm.module_settings[]`: other settings for modules of some names."""

    contains: str = planned("4nt$3", "Part of the module's name; `a|b` means both.")
    extract_mode: str = planned("ratio", "How the rank is found.")
    parameter_threshold: int = planned(0, "Leave out modules with fewer parameters.")
    extract_mode_param: float = planned(0.25, "Parameter of the mode.")


class LormSection(Section):
    """`network.lorm`: low-rank replacement of the model itself."""

    extract_mode: str = planned("ratio", "How the rank is found.")
    do_conv: bool = planned(False, "Replace convolutions too.")
    extract_mode_param: float = planned(0.25, "Parameter of the mode.")
    parameter_threshold: int = planned(0, "Leave out modules with fewer parameters.")
    module_settings: list[LormModule] = planned([], "Other settings for modules of some names.")


class NetworkPlugin(Section):
    """The keys of `network`. A network type inherits them, narrows `type`, adds its own and builds itself."""

    type: str = works("lora", "The kind of network.")
    linear: int = works(4, "Rank of the update of Linear layers; file size and memory grow with it.", ge=1)
    linear_alpha: float | None = works(
        None,
        "Scale numerator: the update is multiplied by linear_alpha / linear. Default: `alpha`, else the rank.",
        gt=0,
    )
    rank: int | None = works(None, "Old name of `linear`; wins over it.", ge=1)
    alpha: float | None = works(None, "Old name of `linear_alpha`, used if that is absent.", gt=0)
    conv: int | None = works(
        None, "Rank of the update of 3x3 convolutions; models without any (transformers) are not affected.", ge=0
    )
    conv_alpha: float | None = works(None, "Scale numerator of convolutions; default: `conv`.", ge=0)
    dropout: float | None = works(None, "Chance to drop an input of the update while training.", ge=0, lt=1)
    network_kwargs: LayerChoice = works(LayerChoice, "Which layers are trained.")
    transformer_only: bool = works(True, "Train only layers inside the transformer blocks, not the ones around them.")
    pretrained_lora_path: str | None = planned(None, "Start from these weights.")
    split_multistage_loras: bool = planned(True, "Two-expert models: one file per expert.")
    all_layers: bool = planned(False, "Train norms and embeddings too.")
    layer_offloading: bool = planned(False, "Offload the network.")
    old_lokr_format: bool = planned(False, "Write `lycoris_` keys.")
    lokr_full_rank: bool = idle(True, "only for LoKr")
    lokr_factor: int = idle(-1, "only for LoKr")
    lorm: LormSection | None = planned(None, "LoRM only: low-rank replacement of the model itself.")

    @property
    def effective_rank(self) -> int:
        """The rank of Linear layers, by either name."""
        return self.rank or self.linear

    @property
    def effective_alpha(self) -> float:
        """The alpha of Linear layers, by either name; the rank if neither is given."""
        return self.linear_alpha or self.alpha or float(self.effective_rank)

    @abstractmethod
    def build(self, denoiser: Any, trainable: Any) -> Any:
        """Put the network into `denoiser`; `trainable` says where it may go."""
