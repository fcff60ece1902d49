"""`network`: what is trained beside a frozen model. The keys that network types share, and the contract of a type."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from toolkit.config.section import Remarked, Section, idle, planned, works


class LayerChoice(Section):
    """`network.network_kwargs`: which layers get a network, and options of the type."""

    only_if_contains: list[str] | None = works(
        None, "Train only layers whose name contains one of these texts (plain text, no globs)."
    )
    ignore_if_contains: list[str] | None = works(
        None, "Leave out layers whose name contains one of these texts; wins over only_if_contains."
    )
    full_if_contains: str | list[str] | None = works(
        None,
        "Train layers whose name contains one of these texts fully instead of by low rank, in the blocks or not: "
        "a difference to weight and bias, saved as .diff and .diff_b.",
    )
    parameter_threshold: int = works(0, "Leave out layers with fewer parameters.", ge=0)
    rank_dropout: float | None = works(None, "Chance to drop a rank while training.", ge=0, lt=1)
    module_dropout: float | None = works(None, "Chance to drop a layer's whole update while training.", ge=0, lt=1)
    attn_only: bool = idle(False, "ai-toolkit does not read it either")
    block_dims: list[int] | None = works(
        None,
        "Rank per block; 0 leaves a block out. A U-Net takes 25 numbers: one for what lies outside of its blocks, 11 "
        "for the way down, one for the middle, 12 for the way up; other models one per block, in their order.",
    )
    block_alphas: list[float] | None = works(None, "Alpha per block; default: the block's rank.")
    conv_block_dims: list[int] | None = works(
        None, "Rank per block of 3x3 convolutions, which then need no `conv`; as many numbers as block_dims."
    )
    conv_block_alphas: list[float] | None = works(None, "Alpha per block of 3x3 convolutions; default: its rank.")
    target_lin_modules: list[str] | None = works(
        None, "Adapt only Linear layers inside modules of these classes, e.g. Transformer2DModel."
    )
    target_conv_modules: list[str] | None = works(
        None, "Adapt only convolutions inside modules of these classes, e.g. ResnetBlock2D."
    )
    use_bias: bool = planned(False, "Give the update a bias.")
    full_train_in_out: bool = planned(False, "Train the first and last layer fully.")

    @property
    def full(self) -> list[str]:
        """`full_if_contains` as a list."""
        texts = self.full_if_contains or []
        return [texts] if isinstance(texts, str) else texts

    def contradictions(self) -> Iterator[Remarked]:
        """Numbers per block of which some are missing."""
        for key in ("block_alphas", "conv_block_dims", "conv_block_alphas"):
            other = "conv_block_dims" if key == "conv_block_alphas" else "block_dims"
            numbers, expected = getattr(self, key), getattr(self, other)
            if numbers and not expected:
                yield (key,), f"needs {other}"
            elif numbers and len(numbers) != len(expected):
                yield (key,), f"has {len(numbers)} numbers, {other} has {len(expected)}"


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
    pretrained_lora_path: str | None = works(
        None,
        "Start from the weights in this file, in any key format; another rank is converted. Of two experts: either "
        "file, the other lies beside it.",
    )
    loraplus_lr_ratio: float | None = works(
        None, "aitk only. LoRA+ (Hayou et al., 2024): how many times faster B learns than A; the paper uses 16.", gt=0
    )
    split_multistage_loras: bool = planned(True, "Two-expert models: one file per expert.")
    all_layers: bool = works(False, "Train norms, embeddings and other layers that cannot be adapted too, fully.")
    layer_offloading: bool = planned(False, "Offload the network.")
    old_lokr_format: bool = planned(False, "Write `lycoris_` keys.")
    lokr_full_rank: bool = idle(True, "only for LoKr")
    lokr_factor: int = idle(-1, "only for LoKr")
    lorm: LormSection | None = planned(None, "LoRM only: low-rank replacement of the model itself.")

    @property
    def has_rank(self) -> bool:
        """Whether the rank and alpha of Linear layers act."""
        return True

    @property
    def effective_rank(self) -> int:
        """The rank of Linear layers, by either name."""
        return self.rank or self.linear

    @property
    def effective_alpha(self) -> float:
        """The alpha of Linear layers, by either name; the rank if neither is given."""
        return self.linear_alpha or self.alpha or float(self.effective_rank)

    @property
    def title(self) -> str:
        """What is trained, in a few words."""
        return f"{self.type} of rank {self.effective_rank}"

    @abstractmethod
    def build(self, module: Any, trainable: Any, codec: Any = None) -> Any:
        """Put the network into `module`; `trainable` says where it may go, `codec` how its file names the layers."""
