"""Extracting: two checkpoints -> one LoRA file per denoiser, with what was kept of each layer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from jobs import Stopped
from toolkit.atomic import atomic_path, remove_leftovers, write_text
from toolkit.context import DTYPES, Context, make_context
from toolkit.models.family import Family, Trainable
from toolkit.models.pair import open_pair, tuned_source
from toolkit.models.source import Source
from toolkit.networks.extract import Extraction, LayerReport, extract, pad_namesakes, watch
from toolkit.networks.files import write_weights
from toolkit.networks.keys.codec import Codec
from toolkit.reporting.failures import explained
from toolkit.reporting.progress import bar
from toolkit.reporting.versions import installed_version
from toolkit.training.header import header
from toolkit.training.stop import StopFlag, say_at_once

if TYPE_CHECKING:
    from extensions_built_in.weights.extract_config import ExtractLora
    from jobs import Job

WORST = 8
"""How many layers the table on the terminal has."""
NAMED = 3
"""How many tensors that are left out are named there."""


class ExtractProcess:
    """Writes the difference of two checkpoints."""

    def __init__(self, config: ExtractLora, job: Job) -> None:
        assert config.model is not None, "completed() has not been called"
        self.config, self.model, self.job = config, config.model, job
        self.path = config.path(job.name)

    def run(self) -> None:
        """Compare, factor, write; raises `Stopped` after a clean stop by the user, with nothing written."""
        begun = time.monotonic()
        remove_leftovers(self.path.parent)
        with explained({"model": self.model.name_or_path, "folder": str(self.path.parent)}), StopFlag(_tell) as stop:
            context = make_context(self.config.device, "fp32", seed=0)
            family = self.model.build(context, checkpointing=False, bypass_guidance=False)
            written = {}
            for suffix, trainables in self._files(family).items():
                found = self._extract(family, trainables, context, stop)
                if found.layers:
                    path = self.path.with_name(f"{self.path.stem}{suffix}{self.path.suffix}")
                    self._write(path, found, family, trainables)
                    written[path] = found
        if not written:
            raise ValueError(f"{self.config.extract_model} does not differ from {self.model.name_or_path} in any layer "
                             "that is compared; nothing was written")  # fmt: skip
        for path, found in written.items():
            tell(found, Console())
            print(f"{path}: {_count(found)} in {time.monotonic() - begun:.1f} s", flush=True)

    def _files(self, family: Family) -> dict[str, list[Trainable]]:
        """Suffix of the file -> what goes into it: experts have one each, text encoders share the first."""
        config, files = self.config, dict[str, list[Trainable]]()
        for trainable in family.facts.trainables:
            if config.extract_text_encoder if trainable.is_text_encoder else config.extract_unet:
                files.setdefault(trainable.file, []).append(trainable)
        if not files:
            raise ValueError("extract_text_encoder: the text encoders of this family cannot be extracted")
        return files

    # -- comparing ------------------------------------------------------------------------------------------------

    def _extract(self, family: Family, trainables: Sequence[Trainable], context: Context, stop: StopFlag) -> Extraction:
        found, rules = Extraction(), self.config.rules()
        base, tuned, held = self._sources(family)
        for trainable in trainables:
            if trainable.part not in held:
                print(f"{trainable.part}: {self.config.extract_model} has none of its own", flush=True)
                continue
            pair = open_pair(base, tuned, trainable.part)
            with bar(f"comparing {trainable.part}", len(pair.names)) as advance, torch.no_grad():
                names = watch(pair.names, advance, lambda: _leave_if(stop))
                extract(pair, trainable, rules, context.device, DTYPES[self.config.dtype], found, names)
            pad_namesakes(found, trainable.prefix)
        return found

    def _sources(self, family: Family) -> tuple[Source, Source, list[str]]:
        base = family.parts.source
        tuned, held = tuned_source(base, self.config.extract_model, [one.part for one in family.facts.trainables])
        return base, tuned, held

    # -- writing --------------------------------------------------------------------------------------------------

    def _write(self, path: Path, found: Extraction, family: Family, trainables: Sequence[Trainable]) -> None:
        tensors: dict[str, torch.Tensor] = {}
        format = ""
        for trainable in trainables:
            codec = Codec(self.model.key_names, trainable.prefix, self.config.key_format)
            own = {name: tensor for name, tensor in found.tensors.items() if name.startswith(trainable.prefix)}
            tensors |= codec.encode(own)
            format = codec.format
        report = describe(found, self.config)
        with atomic_path(path) as temporary:
            write_weights(temporary, tensors, DTYPES[self.config.dtype], self._header(family, found, format, report))
        if self.config.json_report:
            whole = {**report, "layers": list_layers(found.layers)}
            write_text(path.with_suffix(".json"), json.dumps(whole, indent=2) + "\n")

    def _header(self, family: Family, found: Extraction, format: str, report: Mapping[str, Any]) -> dict[str, str]:
        rank = str(max((layer.rank for layer in found.layers), default=0))
        entries = header(
            name=self.job.name,
            step=0,
            epoch=0,
            version=installed_version("aitk") or "0",
            base_version=family.facts.base_model,
            base_model=self.model.name_or_path,
            config_hash="",
            network={
                "network_type": "lora",
                "ss_network_module": "networks.lora",
                "ss_network_dim": rank,
                "ss_network_alpha": rank,
                "alpha_folded": "true",
                "key_format": format,
                "extraction": json.dumps(report),
            },
            trigger=None,
            meta=self.job.meta,
        )
        # what only a training has
        kept = {key: value for key, value in entries.items() if key not in ("training_info", "ss_steps", "config_hash")}
        return {key: self.job.document.mask(value) for key, value in kept.items()}


def describe(found: Extraction, config: ExtractLora) -> dict[str, Any]:
    """What was done and kept, as plain data: for the header, and with every layer for the JSON file."""
    linear, conv = config.numbers
    return {
        "base_model": config.model.name_or_path if config.model else "",
        "extract_model": config.extract_model,
        "mode": config.mode,
        "linear": linear,
        "conv": conv,
        "energy": round(found.energy, 6),
        "same": found.same,
        "left_out": {why: len(names) for why, names in found.left_out.items()},
        "least_energy": list_layers(worst(found.layers)),
    }


def list_layers(layers: Iterable[LayerReport]) -> dict[str, dict[str, float]]:
    """Layer -> rank, energy and norm."""
    return {
        layer.name: {"rank": layer.rank, "energy": round(layer.energy, 6), "norm": float(f"{layer.norm:.6g}")}
        for layer in layers
    }


def tell(found: Extraction, console: Console) -> None:
    """Print the layers of which the least is kept, and what is left out."""
    lines = ["layers of which the least is kept", f"{'kept':>8} {'rank':>6} {'norm':>9} {'shape':>16}  layer"]
    for layer in worst(found.layers):
        shape = "x".join(map(str, layer.shape))
        rank = str(layer.rank) if layer.rank else "whole"
        lines.append(f"{layer.energy:>8.2%} {rank:>6} {layer.norm:>9.4g} {shape:>16}  {layer.name}")
    # names of layers stay whole in narrow terminals, so that they can be searched for
    console.print("\n".join(lines), markup=False, soft_wrap=True, highlight=False)
    for why, names in found.left_out.items():
        examples = ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
        console.print(f"left out, although they differ: {len(names)} {why} ({examples})", markup=False, soft_wrap=True)


def worst(layers: Iterable[LayerReport]) -> list[LayerReport]:
    """Those with the smallest share kept, the worst first."""
    return sorted(layers, key=lambda layer: layer.energy)[:WORST]


def _count(found: Extraction) -> str:
    ranks = [layer.rank for layer in found.layers if layer.rank]
    low = f"{len(ranks)} layers of rank {min(ranks)}" if ranks else "no layer of low rank"
    if ranks and min(ranks) != max(ranks):
        low += f" to {max(ranks)}"
    whole = f", {len(found.layers) - len(ranks)} tensors whole" if len(ranks) < len(found.layers) else ""
    return f"{low}{whole}; {found.energy:.2%} of the difference is kept, {found.same} tensors are the same"


def _leave_if(stop: StopFlag) -> None:
    if stop.requested:
        raise Stopped("the extraction was stopped and nothing was written; the same command starts again")


def _tell(_: str) -> None:
    say_at_once("stopping after this layer (ctrl+c again leaves at once)")
