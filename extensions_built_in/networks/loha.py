"""LoHa (Hyeon-Woo et al., 2021), by peft: a weight's update is the product, entry by entry, of two low-rank ones."""

from __future__ import annotations

import json
from collections.abc import Mapping

from peft import LoHaConfig, LoHaModel
from peft.tuners.loha.layer import LoHaLayer
from torch import Tensor, nn

from extensions_built_in.networks.diff import add_diffs
from extensions_built_in.networks.inject import ADAPTER, follow_autocast, inject
from extensions_built_in.networks.lora import lora_header, lora_title
from toolkit.models.family import Trainable
from toolkit.networks.adapter import Adapter, Update
from toolkit.networks.keys.codec import Codec
from toolkit.networks.ranks import Ranks
from toolkit.networks.resize import resize_rank
from toolkit.networks.targets import Rules, find_targets

NAMES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")


class LohaNetwork(Adapter):
    """Updates (w1_a w1_b) * (w2_a w2_b), times alpha / rank, of the chosen layers."""

    def __init__(
        self,
        module: nn.Module,
        trainable: Trainable,
        ranks: Ranks,
        rules: Rules = Rules(),
        rank_dropout: float = 0.0,
        module_dropout: float = 0.0,
        codec: Codec | None = None,
    ) -> None:
        targets = find_targets(module, trainable, rules, ranks)
        layers = inject(
            module, LoHaModel, LoHaConfig, targets.sizes, rank_dropout=rank_dropout, module_dropout=module_dropout
        )
        updates: dict[str, Update] = {name: LohaUpdate(layer) for name, layer in layers.items()}
        updates |= add_diffs(module, targets.full)
        header = {
            **lora_header("loha", ranks),
            "ss_network_module": "lycoris.kohya",
            "ss_network_args": json.dumps({"algo": "loha"}),
        }
        super().__init__(lora_title("LoHa", ranks), trainable, targets, updates, header, codec)


class LohaUpdate:
    """peft's LoHa layer, as `toolkit.networks.adapter.Update`."""

    def __init__(self, layer: LoHaLayer) -> None:
        self.layer = layer
        follow_autocast(layer)
        self.scale = float(layer.scaling[ADAPTER])
        self.params: Mapping[str, nn.Parameter] = {name: getattr(layer, name)[ADAPTER] for name in NAMES}

    def act(self, strength: float) -> None:
        """Set the strength."""
        self.layer.scaling[ADAPTER] = self.scale * strength

    def written(self) -> dict[str, Tensor]:
        """The matrices, w1_b times alpha / rank."""
        return {name: param * (self.scale if name == "hada_w1_b" else 1.0) for name, param in self.params.items()}

    def fitted(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The matrices of this rank and alpha."""
        if found.keys() != set(NAMES):
            raise ValueError(f"has {', '.join(sorted(found))}, a LoHa has {', '.join(NAMES)}")
        values: dict[str, Tensor] = {}
        for name in ("hada_w1", "hada_w2"):
            down, up, mine = found[f"{name}_b"], found[f"{name}_a"], self.params[f"{name}_b"].detach().to("cpu")
            if down.shape[1:] != mine.shape[1:] or len(up) != len(self.params[f"{name}_a"]):
                raise ValueError("is of another size")
            if len(down) != len(mine):
                down, up = resize_rank(down, up, mine)
            values |= {f"{name}_b": down, f"{name}_a": up}
        return {**values, "hada_w1_b": values["hada_w1_b"] / self.scale}
