"""The processes of `job: merge`. What they compute is in toolkit/weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from extensions_built_in.weights.report import begin, finish, show_energy
from toolkit.atomic import write_text
from toolkit.config.errors import naming
from toolkit.context import DTYPES, make_context
from toolkit.networks.attached import network_file
from toolkit.networks.keys.family import find_names
from toolkit.networks.keys.guess import key_format, stems_of
from toolkit.networks.keys.summary import read_file_header
from toolkit.reporting.failures import explained
from toolkit.reporting.progress import bar
from toolkit.weights.base import open_base
from toolkit.weights.checkpoints import add_difference, merge_checkpoints, plan_mixtures, weighted_mean
from toolkit.weights.combine import Combined, combine
from toolkit.weights.headers import agreed, folded, merged_from
from toolkit.weights.into_base import Added, merge_into_base, plan_updates
from toolkit.weights.network import encode, kind_of, ranks_of, read_network, save_network
from toolkit.weights.stored import DTYPES as STORED_TYPES

if TYPE_CHECKING:
    from extensions_built_in.weights.merge_config import MergeLoraIntoModel, MergeLoras, MergeModels

FORMAT_OF = {"lycoris": "kohya", "peft": "diffusers", "unknown": "diffusers"}
"""The key format that is written where the first file has a mixture."""


class MergeLorasProcess:
    """Several LoRAs into one."""

    def __init__(self, config: MergeLoras) -> None:
        self.config = config

    def run(self) -> None:
        """Read, combine, write."""
        config = self.config
        begin(config)
        paths = [network_file(one.path) for one in config.loras]
        weights = [one.weight for one in config.loras]
        with naming("loras.0.path"):
            stored, _ = read_file_header(paths[0])
            names = find_names(paths[0], config.arch)
        files = []
        for number, path in enumerate(paths):
            with naming(f"loras.{number}.path"):
                files.append(read_network(path, names))
        for file in files:
            if file.left:
                count, first = len(file.left), file.left[0]
                print(f"note: {file.path.name}: {count} keys are of no known layer and left out, e.g. {first}")
        for text in bases_differ([file.header for file in files]):
            print(f"note: {text}")
        layers = {name for file in files for name in file.layers}
        with explained({}), bar("combining layers", len(layers)) as advance:
            done = combine(
                files,
                weights,
                config.method,
                rank=config.rank,
                energy=config.energy,
                device=make_context(config.device, "fp32", 0).device,
                advance=advance,
            )
            format = config.key_format or _format_of(stored)
            header = {
                **folded(agreed([file.header for file in files]), ranks_of(done.layers)),
                **merged_from(list(zip(paths, weights, strict=True))),
                "network_type": Counter(map(kind_of, done.layers.values())).most_common(1)[0][0],
                "key_format": format,
            }
            dtype = config.stored_as or _dtype_of(stored)
            save_network(config.target, encode(done.layers, names, format), header, dtype)
        describe(done, config.report)
        finish(config.target, f"{len(done.layers)} layers of {len(files)} files")


class MergeLoraIntoModelProcess:
    """LoRAs into a base."""

    def __init__(self, config: MergeLoraIntoModel) -> None:
        self.config = config

    def run(self) -> None:
        """Plan by the headers, then write tensor by tensor."""
        config = self.config
        begin(config)
        with naming("base"):
            base = open_base(config.base, config.revision)
        added = [Added(network_file(one.path), one.weight, one.part) for one in config.loras]
        with naming("loras.0.path"):
            names = find_names(added[0].path, config.arch, model=config.base, revision=config.revision)
        updates, notes = plan_updates(base, added, names)
        print(*notes, sep="\n", flush=True)
        stored = {id(update.stored): update.stored for update in updates}
        with explained({}), bar("writing tensors", sum(len(one.kinds) for one in stored.values())) as advance:
            merge_into_base(
                base,
                updates,
                config.target,
                added=added,
                dtype=config.stored_as,
                whole=config.whole,
                advance=advance,
            )
        finish(config.target, f"{base.name} with {len(added)} LoRA{'s' * (len(added) > 1)}")


class MergeModelsProcess:
    """Checkpoints into one."""

    def __init__(self, config: MergeModels) -> None:
        self.config = config

    def run(self) -> None:
        """Compare the headers, then write tensor by tensor."""
        config = self.config
        begin(config)
        with naming("models"):
            bases = [open_base(one.path) for one in config.models]
        mixtures = plan_mixtures(bases, config.parts, config.allow_missing)
        for mixture in mixtures:
            print(*(f"note: {note}" for note in mixture.notes), sep="\n", end="\n" if mixture.notes else "", flush=True)
        if config.method == "add_difference":
            rule, factors = add_difference(config.multiplier), [1.0, config.multiplier, -config.multiplier]
        else:
            weights = [one.weight for one in config.models]
            rule, factors = weighted_mean(weights), [weight / sum(weights) for weight in weights]
        sources = [(base.file or Path(base.name), factor) for base, factor in zip(bases, factors, strict=True)]
        with explained({}), bar("mixing tensors", sum(len(one.models[0].kinds) for one in mixtures)) as advance:
            merge_checkpoints(
                bases,
                mixtures,
                rule,
                config.target,
                sources=sources,
                dtype=config.stored_as,
                whole=config.whole,
                advance=advance,
            )
        finish(config.target, f"{config.method} of {len(bases)} models")


def describe(done: Combined, report: str | None) -> None:
    """Say how much the method kept or lost, the worst layers by name."""
    if done.kept:
        show_energy(done.kept)
    if done.errors:
        worst = max(done.errors, key=lambda name: done.errors[name])
        mean = sum(done.errors.values()) / len(done.errors)
        print(f"differs from the exact sum by {mean:.2%} of it on average, at most {done.errors[worst]:.2%} ({worst})")
        if mean > 0.1:
            print(
                "note: the files do not share their directions; `method: concat` is exact, `svd` the nearest of a rank"
            )
    if report:
        rows = {"energy_kept": done.kept, "relative_error": done.errors}
        write_text(Path(report).expanduser(), json.dumps(rows, indent=2) + "\n")


def bases_differ(headers: list[Mapping[str, str]]) -> list[str]:
    """A remark if the headers name different kinds of base models."""
    key = "ss_base_model_version"
    told = sorted({header[key] for header in headers if header.get(key)})
    return [f"the files were trained on different base models: {', '.join(told)}"] if len(told) > 1 else []


def _format_of(tensors: Mapping[str, Any]) -> str:
    found = key_format(stems_of(tensors))
    return FORMAT_OF.get(found, found)


def _dtype_of(tensors: Mapping[str, Any]) -> torch.dtype:
    """The type that most tensors of a file have."""
    names = Counter(entry["dtype"] for entry in tensors.values() if entry["shape"])
    return STORED_TYPES.get(names.most_common(1)[0][0], DTYPES["fp32"])
