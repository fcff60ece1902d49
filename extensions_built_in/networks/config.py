"""Network types that work on every family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from toolkit.config.plugins import NetworkPlugin, Remarked
from toolkit.config.section import idle, works

if TYPE_CHECKING:
    from extensions_built_in.networks.diff import FullrankNetwork
    from extensions_built_in.networks.dora import DoraNetwork
    from extensions_built_in.networks.loha import LohaNetwork
    from extensions_built_in.networks.lokr import LokrNetwork
    from extensions_built_in.networks.lora import LoraNetwork
    from toolkit.models.family import Trainable
    from toolkit.networks.keys.codec import Codec
    from toolkit.networks.ranks import Ranks
    from toolkit.networks.targets import Rules

NO_DROPOUT = "this network has rank_dropout and module_dropout only"
NO_RANK = "the update has full rank"


class Lora(NetworkPlugin):
    """Low-rank updates of Linear layers, 1x1 convolutions and, with `conv`, larger ones."""

    type: Literal["lora"] = "lora"

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> LoraNetwork:
        """Put the network into `module`."""
        return build_lora(self, self.conv or 0, module, trainable, codec)


class Locon(NetworkPlugin):
    """LoRA of the 3x3 convolutions too, by the rank of the Linear layers unless `conv` says otherwise."""

    type: Literal["locon", "lycoris"] = "locon"

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> LoraNetwork:
        """Put the network into `module`."""
        return build_lora(self, or_else(self.conv, self.effective_rank), module, trainable, codec)


class Dora(NetworkPlugin):
    """LoRA with a trained magnitude per output (Liu et al., 2024)."""

    type: Literal["dora"]

    def contradictions(self) -> Iterator[Remarked]:
        """Dropout that would leave the magnitude to make up for what is dropped."""
        for key in ("rank_dropout", "module_dropout"):
            if getattr(self.network_kwargs, key):
                yield ("network_kwargs", key), "cannot be combined with DoRA; use network.dropout"

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> DoraNetwork:
        """Put the network into `module`."""
        from extensions_built_in.networks.dora import DoraNetwork

        ranks = read_ranks(self, self.conv or 0)
        return DoraNetwork(module, trainable, ranks, read_rules(self), self.dropout or 0.0, codec)


class Lokr(NetworkPlugin):
    """Updates that are Kronecker products of two small matrices (Yeh et al., 2023)."""

    type: Literal["lokr"]
    lokr_full_rank: bool = works(
        True, "Keep both matrices whole; `linear` and `linear_alpha` have no effect, and 3x3 convolutions are adapted."
    )
    lokr_factor: int = works(
        -1, "Size of the first matrix, as near as it divides the layer's; -1: near the square root.", ge=-1
    )
    dropout: float | None = idle(None, NO_DROPOUT)
    loraplus_lr_ratio: float | None = idle(None, "only for LoRA")

    @property
    def title(self) -> str:
        """What is trained, in a few words."""
        return "lokr of full rank" if self.lokr_full_rank else super().title

    @property
    def has_rank(self) -> bool:
        """Whether the rank and alpha of Linear layers act."""
        return not self.lokr_full_rank

    def contradictions(self) -> Iterator[Remarked]:
        """Ranks beside a full rank, and a factor that divides nothing."""
        if self.lokr_full_rank and self.network_kwargs.block_dims:
            yield ("network_kwargs", "block_dims"), "needs lokr_full_rank: false"
        if self.lokr_factor == 0:
            yield ("lokr_factor",), "must be -1 or at least 1"

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> LokrNetwork:
        """Put the network into `module`."""
        from extensions_built_in.networks.lokr import WHOLE, LokrNetwork
        from toolkit.networks.ranks import Ranks

        if self.lokr_full_rank:
            ranks = Ranks(WHOLE, WHOLE, conv=0 if self.conv == 0 else WHOLE)
        else:
            ranks = read_ranks(self, self.conv or 0)
        kwargs = self.network_kwargs
        return LokrNetwork(
            module,
            trainable,
            ranks,
            self.lokr_factor,
            read_rules(self),
            rank_dropout=kwargs.rank_dropout or 0.0,
            module_dropout=kwargs.module_dropout or 0.0,
            codec=codec,
        )


class Loha(NetworkPlugin):
    """Updates that are products, entry by entry, of two low-rank ones (Hyeon-Woo et al., 2021)."""

    type: Literal["loha"]
    dropout: float | None = idle(None, NO_DROPOUT)
    loraplus_lr_ratio: float | None = idle(None, "only for LoRA")

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> LohaNetwork:
        """Put the network into `module`."""
        from extensions_built_in.networks.loha import LohaNetwork

        kwargs = self.network_kwargs
        return LohaNetwork(
            module,
            trainable,
            read_ranks(self, self.conv or 0),
            read_rules(self),
            rank_dropout=kwargs.rank_dropout or 0.0,
            module_dropout=kwargs.module_dropout or 0.0,
            codec=codec,
        )


class Fullrank(NetworkPlugin):
    """A difference of full rank to every chosen layer: as large as the layers, saved as .diff and .diff_b."""

    type: Literal["fullrank"]
    linear: int = idle(4, NO_RANK)
    linear_alpha: float | None = idle(None, NO_RANK)
    conv: int | None = works(None, "0: leave 3x3 convolutions out.", ge=0)
    conv_alpha: float | None = idle(None, NO_RANK)
    dropout: float | None = idle(None, "this network has no dropout")
    loraplus_lr_ratio: float | None = idle(None, "only for LoRA")

    @property
    def title(self) -> str:
        """What is trained, in a few words."""
        return "differences of full rank"

    @property
    def has_rank(self) -> bool:
        """Whether the rank and alpha of Linear layers act."""
        return False

    def contradictions(self) -> Iterator[Remarked]:
        """Options of low-rank networks."""
        for key in ("block_dims", "rank_dropout", "module_dropout"):
            if getattr(self.network_kwargs, key):
                yield ("network_kwargs", key), f"cannot be combined with type fullrank: {NO_RANK}"

    def build(self, module: Any, trainable: Trainable, codec: Codec | None = None) -> FullrankNetwork:
        """Put the network into `module`."""
        from extensions_built_in.networks.diff import FullrankNetwork

        return FullrankNetwork(module, trainable, read_rules(self), conv=self.conv != 0, codec=codec)


def build_lora(
    network: NetworkPlugin, conv: int, module: Any, trainable: Trainable, codec: Codec | None
) -> LoraNetwork:
    """A LoRA by the keys of `network`; `conv`: the rank of 3x3 convolutions."""
    from extensions_built_in.networks.lora import LoraNetwork

    kwargs = network.network_kwargs
    return LoraNetwork(
        module,
        trainable,
        network.effective_rank,
        network.effective_alpha,
        read_rules(network),
        read_ranks(network, conv),
        dropout=network.dropout or 0.0,
        rank_dropout=kwargs.rank_dropout or 0.0,
        module_dropout=kwargs.module_dropout or 0.0,
        codec=codec,
    )


def read_rules(network: NetworkPlugin) -> Rules:
    """Which layers the keys of `network` choose."""
    from toolkit.networks.targets import Rules

    kwargs = network.network_kwargs
    return Rules(
        blocks_only=network.transformer_only,
        only=kwargs.only_if_contains or (),
        ignore=kwargs.ignore_if_contains or (),
        full=kwargs.full,
        all_layers=network.all_layers,
        min_params=kwargs.parameter_threshold,
        linear_inside=kwargs.target_lin_modules or (),
        conv_inside=kwargs.target_conv_modules or (),
    )


def read_ranks(network: NetworkPlugin, conv: int) -> Ranks:
    """The sizes that the keys of `network` give the layers; `conv`: the rank of 3x3 convolutions."""
    from toolkit.networks.ranks import Ranks

    kwargs = network.network_kwargs
    return Ranks(
        network.effective_rank,
        network.effective_alpha,
        conv,
        network.conv_alpha or 0.0,
        kwargs.block_dims or (),
        kwargs.block_alphas or (),
        kwargs.conv_block_dims or (),
        kwargs.conv_block_alphas or (),
    )


def or_else(value: int | None, default: int) -> int:
    """`value` unless it is missing; 0 is a value."""
    return default if value is None else value
