"""What on this machine keeps a config from running: folders, files, disk space. Reads no picture and no weights.

Every function yields (key path inside the process, what is to be said).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from toolkit.config.embedded import EMBEDDED, embedded_folder, misnamed
from toolkit.config.errors import Problem
from toolkit.config.explain import Described
from toolkit.config.plugins import ModelPlugin, NetworkPlugin
from toolkit.config.section import Remarked
from toolkit.config.sections.dataset import (
    CACHE_FOLDERS,
    IMAGE_ENDINGS,
    SOURCE_ENDINGS,
    VIDEO_ENDINGS,
    DatasetSection,
)
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection

HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+(/.+\.safetensors)?$")
HUB_ADDRESS = re.compile(r"^https://(huggingface\.co|hf\.co)/[\w.-]+/[\w.-]+/(blob|resolve)/.+\.safetensors")
LORA_PATHS = ("lora_path", "assistant_lora_path", "inference_lora_path", "accuracy_recovery_adapter")
MODEL_PATHS = ("name_or_path", "extras_name_or_path", "te_name_or_path", "vae_path", "unet_path", *LORA_PATHS)
BYTES_PER_RANK = 4_000_000
"""Of a LoRA file; a large family needs more, so that the check does not cry wolf."""


def preflight(job: Described, online: bool = False, to_come: Sequence[Path] = ()) -> list[Problem]:
    """All problems of the processes of a job, with their places in the config; `online`: those that the network tells.

    The network is asked only just before a job is run. `to_come` are files and folders that jobs before it make: what
    is missing there is no problem.
    """
    found = []
    for index, process in enumerate(job.processes):
        for path, message in process.preflight_online() if online else process.preflight():
            place = ("config", "process", index, *path)
            value = job.document.get(place)
            if not _is_to_come(value, to_come):
                found.append(job.document.problem(place, _on_one_line(message, value)))
    return found


def _on_one_line(message: str, value: Any) -> str:
    """The message, if the value is a path such as "D:\\new", which YAML reads with a line break in it."""
    if not isinstance(value, str) or value.isprintable():
        return message
    return f"{message.replace(value, repr(value))}; write a path with / in it, or in single quotes"


def _is_to_come(value: Any, to_come: Sequence[Path]) -> bool:
    """Whether the value of a key names a file that is not there yet, and will be."""
    if not isinstance(value, str) or not to_come:
        return False
    path = Path(value).expanduser().absolute()
    return not path.exists() and any(path.is_relative_to(made.absolute()) for made in to_come)


def check_folders(datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """Data sets that are missing or hold no picture, and what belongs to them."""
    for index, dataset in enumerate(datasets):
        key = "dataset_path" if dataset.dataset_path else "folder_path"
        if text := _check_data_set(dataset):
            yield ("datasets", index, key), text
        for key, folders in dataset.matched_folders.items():
            missing = [str(other) + _near(other) for other in folders if not other.is_dir()]
            if missing:
                yield ("datasets", index, key), f"there is no folder {', '.join(missing)}"
        triggers = dataset.random_triggers
        if isinstance(triggers, str) and triggers and not Path(triggers).expanduser().is_file():
            yield ("datasets", index, "random_triggers"), f"there is no file {triggers}"


def _check_data_set(dataset: DatasetSection) -> str:
    """What is wrong with the place where a data set should be; empty if nothing is."""
    folder = dataset.folder
    if not dataset.is_folder:
        # of a pattern such as part-{000..012}.tar its files are looked for when it is read
        place = folder.parent if set("*?[{") & set(folder.name) else folder
        return "" if place.exists() else f"there is no file {folder}{_near(folder)}"
    if not folder.is_dir():
        return f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}{_near(folder)}"
    if next(pictures(folder, dataset.endings | SOURCE_ENDINGS | {".arrow"}), None) is not None:
        return ""
    kind = "picture or video" if dataset.has_video else "picture"
    videos = 0 if dataset.has_video else sum(1 for _ in pictures(folder, VIDEO_ENDINGS))
    hint = f"; for its {videos} videos set num_frames above 1" if videos else ""
    return f"there is no {kind} in {folder} ({', '.join(sorted(dataset.endings))}){hint}"


def pictures(folder: Path, endings: Set[str] = IMAGE_ENDINGS) -> Iterator[Path]:
    """The pictures, or what has one of the `endings`, below a folder; hidden and cache folders are left out."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in CACHE_FOLDERS)
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in endings and not name.startswith("."):
                yield Path(parent, name)


def check_model_paths(model: ModelPlugin) -> Iterator[Remarked]:
    """Checkpoints that are neither here nor names of the Hugging Face Hub."""
    for key in MODEL_PATHS:
        name = getattr(model, key)
        if not name:
            continue
        if name.startswith(EMBEDDED):
            if wrong := misnamed(name):
                yield ("model", key), wrong
            continue
        path = Path(name).expanduser()
        if path.exists():
            if path.is_file() and path.suffix != ".safetensors":
                yield ("model", key), f"{name} is no .safetensors file; only these are read"
            continue
        if path.is_absolute() or name.startswith((".", "~")) or "\\" in name:
            yield ("model", key), f"there is no file or folder {name}{_near(path)}"
        elif not HUB_NAME.match(name) and not HUB_ADDRESS.match(name):
            yield ("model", key), f"'{name}' is neither here nor a name of the Hugging Face Hub (owner/model)"
    if model.revision and Path(model.name_or_path).expanduser().exists():
        yield ("model", "revision"), "is for a repository of the Hugging Face Hub, but model.name_or_path is here"


def check_validation(train: TrainSection) -> Iterator[Remarked]:
    """Held-out pictures that are not there."""
    items = train.validation_config.validation_items if train.validation_config else []
    for index, item in enumerate(items):
        if not Path(item.image_path).expanduser().is_file():
            path = ("train", "validation_config", "validation_items", index, "image_path")
            yield path, f"there is no file {item.image_path}"


def check_network(network: NetworkPlugin | None) -> Iterator[Remarked]:
    """A file to start from that is not one."""
    name = network.pretrained_lora_path if network is not None else None
    path = Path(name or "").expanduser()
    if name and path.is_dir():
        yield ("network", "pretrained_lora_path"), f"{name} is a folder; name the .safetensors file in it"
    elif name and not path.is_file():
        yield ("network", "pretrained_lora_path"), f"there is no file {name}{_near(path)}"


def check_results(
    folder: str, save: SaveSection, network: NetworkPlugin | None, model: ModelPlugin
) -> Iterator[Remarked]:
    """Whether results can be written and have room."""
    place = Path(folder).expanduser()
    if text := why_not_written(place):
        yield ("training_folder",), text
        return
    existing = _existing(place)
    needed, disk = bytes_needed(save, network, model), shutil.disk_usage(existing)
    free = disk.free
    if disk.total and free < needed:
        text = f"{_gigabytes(free)} are free in {existing}, but the checkpoints need about {_gigabytes(needed)}"
        yield ("training_folder",), f"{text}; lower save.max_step_saves_to_keep, or make room"


def why_not_written(folder: Path) -> str:
    """Why nothing can be written into a folder, which need not be there yet; empty if it can."""
    existing = _existing(folder)
    if not existing.is_dir():
        return f"{existing} is a file, not a folder"
    can_write = os.access(existing, os.W_OK)
    if can_write and not shutil.disk_usage(existing).total:
        # it may be /proc, which lets nobody write, whatever the permissions say
        try:
            os.rmdir(mkdtemp(dir=existing))
        except OSError:
            can_write = False
    return "" if can_write else f"{existing} cannot be written to"


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there; `Path.exists` fails where nobody may look."""
    return next(each for each in (folder, *folder.absolute().parents) if os.path.exists(each))


def bytes_needed(save: SaveSection, network: NetworkPlugin | None, model: ModelPlugin) -> int:
    """A low guess of what the checkpoints and the state of the optimizer take."""
    size = _weights_size(model)
    if network is not None and network.has_rank:
        update = network.effective_rank * BYTES_PER_RANK
        size = min(size, update) if size else update
    return size * (save.max_step_saves_to_keep + 1) + 3 * size


def _weights_size(model: ModelPlugin) -> int:
    """Bytes of the checkpoint if it is a folder here, else 0."""
    name = model.unet_path or model.name_or_path
    root = embedded_folder(name) or Path(name).expanduser()
    return sum(file.stat().st_size for file in root.rglob("*.safetensors")) if root.is_dir() else 0


def _near(path: Path) -> str:
    """The nearest name beside a missing path."""
    from toolkit.config.names import nearest

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    found = nearest(path.name, names)
    return f"; did you mean {path.parent / found}?" if found else ""


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
