"""The processes of `job: mod`. What they compute is in toolkit/weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.weights.report import begin, finish, show_energy
from toolkit.atomic import atomic_path, write_text
from toolkit.config.errors import naming
from toolkit.context import make_context
from toolkit.models.hub import is_single_file
from toolkit.networks.attached import network_file
from toolkit.networks.files import saved_dtype
from toolkit.networks.keys.file import read_sound
from toolkit.networks.keys.suffixes import ADAPTER_CONFIG
from toolkit.networks.keys.summary import read_file_header
from toolkit.reporting.failures import explained
from toolkit.reporting.progress import bar
from toolkit.weights.base import open_base
from toolkit.weights.checkpoints import merge_checkpoints, plan_mixtures, weighted_mean
from toolkit.weights.edits import layers_of, rescale, resize
from toolkit.weights.headers import carried, folded
from toolkit.weights.network import read_whole, save_network
from toolkit.weights.stored import Kind, StoredTensors
from toolkit.weights.stream import write_stream

if TYPE_CHECKING:
    from extensions_built_in.weights.mod_config import ChangeDtype, EditMetadata, RescaleLora, ResizeLora
    from jobs import Job

ABOUT_BASE = ("ss_base_model_version", "ss_sd_model_name", "ss_v2", "base_model", "modelspec.architecture")
NEEDED = (ADAPTER_CONFIG,)
"""Entries without which the tensors mean something else: diffusers keeps alphas there."""
KEPT = (
    *NEEDED,
    "alpha_folded",
    "key_format",
    "network_type",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
)


class RescaleLoraProcess:
    """Another strength."""

    def __init__(self, config: RescaleLora, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Read, multiply, write."""
        config = self.config
        begin(config)
        with naming("input_path"):
            tensors, header = read_whole(network_file(config.input_path))
        if not layers_of(tensors):
            raise ValueError(f"input_path: {config.input_path} holds no layer of a network")
        changed = rescale(tensors, config.factor, config.scale_target)
        if config.replace_meta:
            header = self._replaced(header)
        with explained({}):
            save_network(config.target, changed, header, config.stored_as)
        finish(config.target, f"its update times {config.factor:g}")

    def _replaced(self, header: Mapping[str, str]) -> dict[str, str]:
        """The header that `meta` of the config makes; what the tensors need and what is known of the base stays."""
        config = self.config
        entries = {key: value for key, value in header.items() if key in (*ABOUT_BASE, *KEPT)}
        if config.is_xl or config.is_v2:
            entries = {key: value for key, value in entries.items() if key not in ABOUT_BASE}
            entries["ss_base_model_version"] = "sdxl_base_v1-0" if config.is_xl else "sd_v2"
        return entries | {"ss_output_name": self.job.name} | as_texts(self.job.meta)


class ResizeLoraProcess:
    """Another rank."""

    def __init__(self, config: ResizeLora) -> None:
        self.config = config

    def run(self) -> None:
        """Read, cut layer by layer, write."""
        config = self.config
        begin(config)
        file = network_file(config.input_path)
        with naming("input_path"):
            tensors, header = read_sound(file)
            stored = read_file_header(file)[0]
        device = make_context(config.device, "fp32", 0).device
        with explained({}), bar("cutting layers", len(layers_of(tensors))) as advance:
            changed, cuts = resize(tensors, config.rank, config.energy, device, advance)
            # alphas that stood in the header are multiplied in, and need no tensors
            kept = {key: tensor for key, tensor in changed.items() if key in stored}
            like = {key: tensor.to(config.stored_as or saved_dtype(tensors[key].dtype)) for key, tensor in kept.items()}
            save_network(config.target, like, folded(header, [cut.after for cut in cuts]), None)
        show_energy({cut.layer: cut.kept for cut in cuts})
        if config.report:
            rows = {cut.layer: {"rank": cut.after, "rank_before": cut.before, "energy_kept": cut.kept} for cut in cuts}
            write_text(Path(config.report).expanduser(), json.dumps(rows, indent=2) + "\n")
        ranks, before = sorted({cut.after for cut in cuts}), sorted({cut.before for cut in cuts})
        finish(config.target, f"{len(cuts)} layers of rank {_span(before)} cut to {_span(ranks)}")


class ChangeDtypeProcess:
    """Another type of numbers."""

    def __init__(self, config: ChangeDtype) -> None:
        self.config = config

    def run(self) -> None:
        """A network whole, for its hashes; a checkpoint tensor by tensor; a folder part by part."""
        config = self.config
        begin(config)
        with explained({}):
            if is_single_file(config.input_path):
                self._change_file(StoredTensors([network_file(config.input_path)]))
            else:
                self._change_folder()
        finish(config.target, f"numbers in {config.save_dtype}")

    def _change_file(self, stored: StoredTensors) -> None:
        dtype = self.config.stored_as
        if has_layers(stored):
            save_network(self.config.target, *read_whole(stored.files[0]), dtype)
        else:
            kinds = {name: kind.saved(dtype) for name, kind in stored.kinds.items()}
            copy_file(stored, self.config.target, kinds, carried(stored.header))

    def _change_folder(self) -> None:
        config = self.config
        base = open_base(config.input_path)
        mixtures = plan_mixtures([base], base.weighty if base.index else [], False)
        with bar("writing tensors", sum(len(one.models[0].kinds) for one in mixtures)) as advance:
            merge_checkpoints(
                [base],
                mixtures,
                weighted_mean([1.0]),
                config.target,
                sources=[],
                dtype=config.stored_as,
                advance=advance,
            )


class EditMetadataProcess:
    """Another header."""

    def __init__(self, config: EditMetadata) -> None:
        self.config = config

    def run(self) -> None:
        """Change the entries; a network gets its hashes anew."""
        config = self.config
        begin(config)
        with naming("input_path"):
            stored = StoredTensors([network_file(config.input_path)])
        before = stored.header
        patterns = (*config.remove, *(["*"] if config.strip else []))
        header = {key: value for key, value in before.items() if not any(fnmatchcase(key, name) for name in patterns)}
        if lost := [key for key in NEEDED if key in before and key not in header]:
            print(f"note: {', '.join(lost)} stays: the alphas of the layers are in it")
            header |= {key: before[key] for key in lost}
        header |= as_texts(config.set)
        with explained({}):
            if has_layers(stored):
                save_network(config.target, read_whole(stored.files[0])[0], header, None)
            else:
                copy_file(stored, config.target, stored.kinds, header)
        finish(config.target, f"{len(header)} entries in its header, {len(before)} before")


def has_layers(stored: StoredTensors) -> bool:
    """Whether a file is a network and not a checkpoint."""
    return bool(layers_of(stored.kinds))


def copy_file(stored: StoredTensors, target: Path, kinds: Mapping[str, Kind], header: Mapping[str, str]) -> None:
    """Write the tensors of a checkpoint again, one at a time."""
    with atomic_path(target) as temporary, bar("writing tensors", len(kinds)) as advance:

        def tensor_of(name: str) -> Tensor:
            advance(1)
            return stored.read(name).to(kinds[name].dtype)

        write_stream(temporary, kinds, tensor_of, header)
    stored.close()


def as_texts(entries: Mapping[str, object]) -> dict[str, str]:
    """Entries as a header holds them."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}


def _span(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
