"""Full fine-tune: the weights of a model part themselves are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import ModelMixin
from torch import Tensor

from toolkit.models.quantize import is_quantized
from toolkit.models.source import without_bars
from toolkit.networks.files import as_saved, write_weights
from toolkit.networks.keys.file import read_tensors
from toolkit.networks.network import Network, group_params, lr_of
from toolkit.networks.shared import like, share_out, whole
from toolkit.networks.targets import NoLayersLeft, weight_layers


class FullWeights:
    """Parameters of a diffusers or transformers model, as fp32, written as a folder or as one file."""

    def __init__(
        self,
        module: Any,
        subfolder: str,
        only: Sequence[str] = (),
        ignore: Sequence[str] = (),
        file: str = "",
        is_single_file: bool = False,
        is_shared: bool = False,
    ) -> None:
        """`only`, `ignore`: texts that a weight's name `<subfolder>.<name>` contains; `file`: suffix of an expert;
        `is_shared`: share the weights out over the ranks of the run.
        """
        if packed := [name for name, layer in weight_layers(module).items() if is_quantized(layer)]:
            raise ValueError(f"{subfolder} is quantized and cannot be trained whole; unset quantize ({packed[0]})")
        self.module, self.subfolder, self.file = module.requires_grad_(False), subfolder, file
        self.suffix = ".safetensors" if is_single_file else ""
        self.rules, self._kind = (only, ignore), type(module)
        self.params = self._chosen()
        if not self.params:
            raise NoLayersLeft(f"model.only_if_contains, model.ignore_if_contains: no weight of {subfolder} is left")
        for param in self.params.values():
            param.requires_grad_(True)
        if is_shared:
            share_out(module)
            self.params = self._chosen()
        for param in self.params.values():
            if param.dtype != torch.float32:
                param.data = param.data.float()
        self.header: Mapping[str, str] = {"network_type": "full"}

    def _chosen(self) -> dict[str, torch.nn.Parameter]:
        return {name: param for name, param in self.module.named_parameters() if self._is_chosen(name)}

    def _is_chosen(self, name: str) -> bool:
        full_name, (only, ignore) = f"{self.subfolder}.{name}", self.rules
        return (not only or any(text in full_name for text in only)) and not any(text in full_name for text in ignore)

    def describe(self) -> list[str]:
        """Lines for the start of the run."""
        count, total = sum(param.numel() for param in self.params.values()), self._count_all()
        share = "" if count == total else f" of {total:,}"
        return [f"full fine-tune of {self.subfolder}: {count:,} parameters{share} in {len(self.params)} tensors"]

    def _count_all(self) -> int:
        return sum(param.numel() for param in self.module.parameters())

    def param_groups(
        self, lr: float, text_lr: float | None = None, plus_ratio: float | None = None
    ) -> list[dict[str, Any]]:
        """The parameters as groups of an optimizer."""
        return group_params(self.params, lr_of(self.subfolder, lr, text_lr), None)

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """A full fine-tune has one strength."""
        yield

    def by_file(self) -> Mapping[str, Network]:
        """A folder has a subfolder for each part; a single file is one expert's."""
        return {self.file if self.suffix else "": self}

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write `path/<subfolder>` for `from_pretrained`, sharded over 5 GB, and `path/aitk_meta.yaml`; or one file."""
        found = self.module.state_dict()
        weights = {name: as_saved(whole(tensor), dtype) for name, tensor in found.items()}
        if any(weights[name].shape != tensor.shape for name, tensor in found.items()):
            path.mkdir(parents=True)  # the first rank writes them
            return
        if self.suffix:
            write_weights(path, weights, dtype, header)
            return
        with without_bars():
            self._save_folder(path / self.subfolder, weights)
        (path / "aitk_meta.yaml").write_text(yaml.safe_dump(dict(header)), encoding="utf-8")

    def _save_folder(self, folder: Path, weights: dict[str, Tensor]) -> None:
        if not isinstance(self.module, ModelMixin):
            self.module.save_pretrained(folder, state_dict=weights, max_shard_size="5GB")
            return
        # a model's own state_dict is what diffusers saves
        with torch.device("meta"):
            saved = self._kind.from_config(self.module.config)
        saved.load_state_dict(weights, assign=True)
        saved.save_pretrained(folder, max_shard_size="5GB")

    @torch.no_grad()
    def read(self, path: Path, exact: bool = True) -> list[str]:
        """Load what `write` wrote."""
        if path.is_file():
            saved, _ = read_tensors(path)
        else:
            with without_bars():
                saved = self._kind.from_pretrained(path / self.subfolder).state_dict()
        mine = self.module.state_dict()
        wrong = saved.keys() ^ mine.keys()
        if wrong:
            raise ValueError(f"{path}: is not a {self._kind.__name__}: {min(wrong)} is missing on one side")
        self.module.load_state_dict({name: like(tensor, mine[name]) for name, tensor in saved.items()})
        return []
