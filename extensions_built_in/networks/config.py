"""Network types that work on every family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from toolkit.config.plugins import NetworkPlugin

if TYPE_CHECKING:
    from extensions_built_in.networks.lora import LoraNetwork
    from toolkit.models.family import Trainable


class Lora(NetworkPlugin):
    """Low-rank updates of Linear layers."""

    type: Literal["lora"] = "lora"

    def build(self, denoiser: Any, trainable: Trainable) -> LoraNetwork:
        """Put the network into `denoiser`."""
        from extensions_built_in.networks.lora import LoraNetwork

        return LoraNetwork(
            denoiser,
            trainable,
            rank=self.effective_rank,
            alpha=self.effective_alpha,
            dropout=self.dropout or 0.0,
            blocks_only=self.transformer_only,
            only=self.network_kwargs.only_if_contains or (),
            ignore=self.network_kwargs.ignore_if_contains or (),
        )
