"""LoRA (Hu et al., 2021) on a family's denoiser, by peft."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file

from toolkit.models.family import Trainable
from toolkit.networks.files import fold_alpha, write_weights
from toolkit.networks.targets import Choice, adaptable_layers, choose

ADAPTER = "default"


class LoraNetwork:
    """Low-rank updates of the chosen Linear layers of `module`: W x + (alpha / rank) B A x."""

    suffix = ".safetensors"

    def __init__(
        self,
        module: torch.nn.Module,
        trainable: Trainable,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        blocks_only: bool = True,
        only: Sequence[str] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        self.rank, self.alpha, self.prefix = rank, alpha, trainable.prefix
        names = adaptable_layers(module)
        self.choice: Choice = choose(names, trainable.prefix, trainable.blocks if blocks_only else None, only, ignore)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules="|".join(re.escape(name) for name in self.choice.names),
        )
        inject_adapter_in_model(config, module, adapter_name=ADAPTER)
        self.layers: dict[str, LoraLayer] = {
            name: layer for name, layer in module.named_modules() if isinstance(layer, LoraLayer)
        }
        self.params: Mapping[str, torch.nn.Parameter] = {
            name: param for name, param in module.named_parameters() if ".lora_" in name
        }
        for param in self.params.values():
            param.data = param.data.float()
            param.requires_grad_(True)
        self.header: Mapping[str, str] = {
            "network_type": "lora",
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(rank),
            "ss_network_alpha": str(alpha),
            "alpha_folded": "true",
        }

    def describe(self) -> list[str]:
        """Lines for the start of the run: layers, parameters, matches per pattern, warnings."""
        count = sum(param.numel() for param in self.params.values())
        lines = [f"LoRA rank {self.rank}, alpha {self.alpha:g}: {len(self.layers)} layers, {count:,} parameters"]
        lines += [f"  {pattern!r} matches {number} layers" for pattern, number in self.choice.matches]
        return lines + [f"  warning: {warning}" for warning in self.choice.warnings]

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """Multiply the update's strength inside the block; 0 switches it off."""
        kept = {name: layer.scaling[ADAPTER] for name, layer in self.layers.items()}
        for name, layer in self.layers.items():
            layer.scaling[ADAPTER] = kept[name] * multiplier
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.scaling[ADAPTER] = kept[name]

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write diffusers keys `<prefix><layer>.lora_A.weight` / `lora_B.weight`."""
        tensors: dict[str, torch.Tensor] = {}
        for name, layer in self.layers.items():
            down, up = fold_alpha(
                layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach(), self.alpha / self.rank
            )
            tensors[f"{self.prefix}{name}.lora_A.weight"] = down
            tensors[f"{self.prefix}{name}.lora_B.weight"] = up
        write_weights(path, tensors, dtype, header)

    @torch.no_grad()
    def read(self, path: Path) -> None:
        """Load a file that `write` wrote with the same layers, rank and alpha."""
        saved, root = load_file(path), (self.alpha / self.rank) ** 0.5
        weights = {
            f"{self.prefix}{name}.{part}.weight": getattr(layer, part)[ADAPTER].weight
            for name, layer in self.layers.items()
            for part in ("lora_A", "lora_B")
        }
        for key, weight in weights.items():
            if key not in saved or saved[key].shape != weight.shape:
                raise ValueError(f"{path}: {key} is missing or has another rank")
        if foreign := saved.keys() - weights.keys():
            raise ValueError(f"{path}: has layers that this network lacks, e.g. {min(foreign)}")
        for key, weight in weights.items():
            weight.copy_(saved[key] / root)
