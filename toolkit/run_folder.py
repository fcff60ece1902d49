"""One run's folder, output/<name>: the lock, the resolved config, and which weights this program wrote when.

The manifest checkpoints.json is what pruning goes by, so that a user's own files are never touched whatever
their names. A save that can be resumed exactly is written in this order: `begin`, weights, state, `record`, `prune`.
Light: reading a folder needs no torch.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from toolkit.atomic import atomic_path, remove_leftovers, write_text
from toolkit.run_lock import RunFolderBusy, hold

__all__ = ["Checkpoint", "RunFolder", "RunFolderBusy", "atomic_path", "is_complete"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Checkpoint:
    """The files of one save, in the run folder; those of the end of a run carry no step in their names."""

    step: int
    final: bool
    files: tuple[str, ...]


class RunFolder:
    """Names, lock and manifest of the folder `path` of the run `name`."""

    def __init__(self, path: Path | str, name: str) -> None:
        self.path = Path(path)
        self.name = name
        self.samples_dir = self.path / "samples"
        self.state_path = self.path / "optimizer.pt"
        self.metrics_path = self.path / "metrics.jsonl"
        self._manifest = self.path / "checkpoints.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs out, after clearing away what a killed one left; RunFolderBusy names the run inside.

        ValueError for a file in its place.
        """
        if self.path.is_file():
            raise ValueError(f"training_folder: {self.path} is a file, where the folder of the run should be")
        with hold(self.path / ".aitk.lock"):
            remove_leftovers(self.path)
            remove_leftovers(self.samples_dir)
            yield

    def write_config(self, text: str) -> None:
        """Write the resolved config, config.yaml."""
        write_text(self.path / "config.yaml", text)

    def read_config(self) -> str:
        """That of the last start; "" before the first."""
        path = self.path / "config.yaml"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def write_versions(self, versions: dict[str, Any]) -> None:
        """Write what the run ran on, versions.json."""
        write_text(self.path / "versions.json", json.dumps(versions, indent=2) + "\n")

    def weights_path(self, step: int | None, suffix: str = "", extension: str = ".safetensors") -> Path:
        """Return where the weights of `step` go; None is the end of the run, a suffix names one of several models.

        A suffix with `{step}` in it is the whole name, in which `{name}` is the run's.
        """
        number = "" if step is None else f"_{step:09d}"
        return self.path / number.join(self._around_step(suffix + extension))

    def _around_step(self, ending: str) -> tuple[str, str]:
        """What of the name of a weights file comes before the number of the step, and what after it."""
        before, step, after = ending.partition("{step}")
        return (before.replace("{name}", self.name), after) if step else (self.name, ending)

    def checkpoints(self) -> list[Checkpoint]:
        """Return what the manifest lists, oldest step first, a final save behind the step save of the same number."""
        return self._read_manifest()[0]

    def _read_manifest(self) -> tuple[list[Checkpoint], list[Checkpoint]]:
        """The saves that are listed, and that which was begun, if there is one."""
        if not self._manifest.exists():
            return [], []
        try:
            content = json.loads(self._manifest.read_text(encoding="utf-8"))
            listed, begun = (
                [Checkpoint(entry["step"], entry["final"], tuple(entry["files"])) for entry in entries]
                for entries in (content["checkpoints"], content.get("begun", []))
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._manifest} is damaged ({error}); remove it, the weights are then kept") from error
        return sorted(listed), begun

    def begin(self, step: int, files: Iterable[Path | str], final: bool = False) -> None:
        """Note that `files` are about to be written, so that `prune` finds them if a kill comes before `record`.

        An earlier save that was begun and never recorded is listed from here on, with those of its files that exist.
        """
        listed, cut_short = self._read_manifest()
        for earlier in cut_short:
            there = tuple(name for name in earlier.files if (self.path / name).exists())
            if there and (earlier.step, earlier.final) != (step, final):
                listed = [*_others(listed, earlier), replace(earlier, files=there)]
        self._write_manifest(listed, [Checkpoint(step, final, tuple(Path(file).name for file in files))])

    def record(self, step: int, files: Iterable[Path | str], final: bool = False) -> None:
        """Note that the save of `step` wrote `files`; there is one final save, so a later one replaces it."""
        saved = Checkpoint(step, final, tuple(Path(file).name for file in files))
        self._write_manifest([*_others(self.checkpoints(), saved), saved])

    def prune(self, keep: int) -> list[Path]:
        """Delete all but the newest `keep` step saves, and return the files deleted."""
        assert keep >= 1, "a resume needs the newest"
        checkpoints = self.checkpoints()
        surplus = [c for c in checkpoints if not c.final][:-keep]
        kept = [c for c in checkpoints if c not in surplus]
        wanted = {name for c in kept for name in c.files}
        deleted = [self.path / name for c in surplus for name in c.files if name not in wanted]
        deleted = [path for path in deleted if path.exists()]
        for path in deleted:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if surplus:
            self._write_manifest(kept)
        return deleted

    def newest_weights(
        self, endings: Sequence[str] = (".safetensors",), notice: Callable[[str], None] = _log.warning
    ) -> tuple[int, tuple[Path, ...]] | None:
        """Return step and files of the newest save that is whole; a broken one is told to `notice`.

        `endings` are the ends of the names of the files wanted, suffix and extension: a save has one file of each.
        """
        for step, final in sorted(self._saves(endings), reverse=True):
            paths = tuple(self.weights_path(None if final else step, "", ending) for ending in endings)
            broken = [path for path in paths if not is_complete(path)]
            if not broken:
                return step, paths
            if any(path.exists() for path in paths):
                state = "is incomplete" if broken[0].exists() else "is missing"
                notice(f"{broken[0]} {state} and its save is left aside; the newest whole one before it is used")
        return None

    def _saves(self, endings: Sequence[str]) -> set[tuple[int, bool]]:
        """(step, is final) of every save: those listed, and those that the manifest lacks, such as ai-toolkit's.

        Not one that was begun and never recorded: its state may be missing, and the run does those steps again exactly.
        """
        listed, begun = self._read_manifest()
        saves = {(checkpoint.step, checkpoint.final) for checkpoint in listed}
        known = {name for checkpoint in [*listed, *begun] for name in checkpoint.files}
        names = [r"_(\d{9})".join(map(re.escape, self._around_step(ending))) for ending in endings if ending]
        for path in self.path.iterdir() if names and self.path.is_dir() else []:
            matches = [match for name in names if (match := re.fullmatch(name, path.name))]
            if matches and path.name not in known:
                saves.add((int(matches[0][1]), False))
        final = self.weights_path(None, "", endings[0])
        step = _step_in_header(final) if final.name not in known else None
        return saves if step is None else {*saves, (step, True)}

    def _write_manifest(self, checkpoints: Iterable[Checkpoint], begun: Iterable[Checkpoint] = ()) -> None:
        listed, started = (
            [{"step": c.step, "final": c.final, "files": list(c.files)} for c in sorted(saves)]
            for saves in (checkpoints, begun)
        )
        content = {"version": 1, "checkpoints": listed, **({"begun": started} if started else {})}
        write_text(self._manifest, json.dumps(content, indent=2) + "\n")


def _others(saves: Iterable[Checkpoint], saved: Checkpoint) -> list[Checkpoint]:
    """The saves beside one, which replaces that of its step, or the final one."""
    return [c for c in saves if c.final != saved.final or (not saved.final and c.step != saved.step)]


def is_complete(path: Path) -> bool:
    """Whether a safetensors file has the size that its header promises, or every such file in a folder has.

    Of a .pt file, whether the end of the archive that it is can be read.
    """
    if path.is_dir():
        weights = list(path.rglob("*.safetensors"))
        return bool(weights) and all(is_complete(file) for file in weights)
    if path.suffix == ".pt":
        return is_zipfile(path)
    try:
        header, start = _read_header(path)
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False
    return path.stat().st_size == start + max(ends, default=0)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header and where its data begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError(f"{path} ends inside its header")
        return json.loads(file.read(length)), 8 + length


def _step_in_header(path: Path) -> int | None:
    """Return the step that a weights file says it holds, or None when there is no file or no word of it."""
    try:
        return int(json.loads(_read_header(path)[0]["__metadata__"]["training_info"])["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
