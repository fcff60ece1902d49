"""Full fine-tune: every weight of the denoiser is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from toolkit.models.source import without_bars


class FullWeights:
    """All parameters of a diffusers model, as fp32, written as a diffusers folder."""

    suffix = ""

    def __init__(self, module: Any, subfolder: str) -> None:
        self.module = module.float().requires_grad_(True)
        self.subfolder = subfolder
        self.params = dict(self.module.named_parameters())
        self.header: Mapping[str, str] = {"network_type": "full"}

    def describe(self) -> list[str]:
        """Lines for the start of the run."""
        count = sum(param.numel() for param in self.params.values())
        return [f"full fine-tune of {self.subfolder}: {count:,} parameters in {len(self.params)} tensors"]

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        """A full fine-tune has one strength."""
        yield

    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        """Write `path/<subfolder>` for `from_pretrained`, sharded over 5 GB, and `path/aitk_meta.yaml`."""
        weights = {name: tensor.detach().to(dtype) for name, tensor in self.module.state_dict().items()}
        with torch.device("meta"):
            saved = type(self.module).from_config(self.module.config)
        saved.load_state_dict(weights, assign=True)
        with without_bars():
            saved.save_pretrained(path / self.subfolder, max_shard_size="5GB")
        (path / "aitk_meta.yaml").write_text(yaml.safe_dump(dict(header)), encoding="utf-8")

    @torch.no_grad()
    def read(self, path: Path) -> None:
        """Load a folder that `write` wrote."""
        with without_bars():
            saved = type(self.module).from_pretrained(path / self.subfolder).state_dict()
        self.module.load_state_dict(saved)
