"""What is in the folders of a run, for torture.py: whether all of it is whole, and whether two runs ended alike."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from toolkit.data.cache.check import check_shard
from toolkit.data.cache.contents import shards
from toolkit.data.cache.shard import open_shard
from toolkit.reporting.metrics import read_metrics
from toolkit.run_folder import is_complete
from toolkit.sampling.picture_files import read_metadata
from toolkit.training.state import StateError, read_state

SAMPLE_TIME = re.compile(r"^\d+__")
CHANGING = {"time", "seconds"}


def damage(run: Path, cache: Path) -> str:
    """What is not whole, "" if all is; files that were being written have hidden names, and do not count."""
    found: list[str] = []
    for path in sorted(run.rglob("*")) if run.is_dir() else []:
        if path.is_file() and not path.name.startswith("."):
            try:
                _open(path)
            except (OSError, ValueError, StateError) as error:
                found.append(f"{path.name}: {error}")
    found += [f"{path.name}: {said}" for path in shards(cache) if (said := check_shard(path))] if cache.is_dir() else []
    return "; ".join(found)


def _open(path: Path) -> None:
    """Raise an error if a file is not whole."""
    if path.suffix == ".safetensors" and not is_complete(path):
        raise ValueError("is cut off")
    if path.suffix == ".pt":
        read_state(path)
    if path.suffix == ".json":
        json.loads(path.read_text())
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()


def end_of_run(run: Path, cache: Path) -> dict[str, Any]:
    """Everything that two runs of one config have in common: bits of weights, state and pictures; losses; names."""
    ends: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = SAMPLE_TIME.sub("", path.relative_to(run).name)
        if path.is_dir():
            continue
        if path.suffix == ".pt":
            content: Any = _hashed(read_state(path))
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                content = dict(file.metadata()), _hashed(load_file(path))
        elif path.suffix == ".jsonl":
            content = [{key: row[key] for key in row if key not in CHANGING} for row in read_metrics(path)]
        elif path.parent.name == "samples" and SAMPLE_TIME.match(path.name):
            with Image.open(path) as image:
                content = hashlib.sha256(image.convert("RGB").tobytes()).hexdigest(), read_metadata(path)
        elif path.name in ("README.md", "status.json"):
            content = "is there"  # they tell how long the run took
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        # of two pictures of one step the second is one too many
        ends[name if name not in ends else f"second {name}"] = content
    keys = {f"{path.parent.name} {key.tobytes().hex()}" for path in shards(cache) for key in open_shard(path).keys}
    ends["cached"] = sorted(keys)
    ends["left in the caches"] = sorted(path.name for path in cache.rglob(".aitk-*"))
    ends["not whole"] = damage(run, cache)
    return ends


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What two ends do not have in common, "" if nothing."""
    missing, more = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    others = [
        f"{name} ({_shorter(wanted[name], found[name])})"
        for name in wanted
        if wanted[name] != found.get(name, wanted[name])
    ]
    told = {"missing": missing, "not in the run in peace": more, "not as in the run in peace": others}
    return "; ".join(f"{text}: {', '.join(names)}" for text, names in told.items() if names)


def _shorter(one: Any, other: Any) -> str:
    """Where two values begin to differ."""
    one_text, other_text = str(one), str(other)
    first = next((place for place, pair in enumerate(zip(one_text, other_text, strict=False)) if len({*pair}) > 1), 0)
    begin = max(0, first - 40)
    return f"...{one_text[begin : first + 40]}... and ...{other_text[begin : first + 40]}..."


def _hashed(value: Any) -> Any:
    """A nested value with hashes of its tensors."""
    if isinstance(value, torch.Tensor):
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return str(value.dtype), list(value.shape), hashlib.sha256(raw).hexdigest()
    if isinstance(value, Mapping):
        return {key: _hashed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_hashed(entry) for entry in value]
    return value
