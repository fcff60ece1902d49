"""The upload of a finished run: which of its files, to where, as one commit that is there whole or not at all.

Files that are in the repository already are not sent again, so that an upload can be repeated at any time.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from toolkit.reporting.model_card import is_untouched, sealed, unsealed
from toolkit.reporting.usage import uploaded
from toolkit.run_folder import RunFolder

CARD = "README.md"


class NotUploaded(RuntimeError):
    """An upload that failed; the message says why and how to repeat it."""


def files_of(folder: RunFolder, include: Collection[str]) -> list[str]:
    """What of a run is uploaded, as paths in its folder. ValueError if it has no final weights."""
    saves = folder.checkpoints()
    final = [name for save in saves if save.final for name in save.files]
    missing = [name for name in final if not (folder.path / name).exists()]
    if not final or missing:
        which = f"{missing[0]} is missing" if missing else "it has no final weights"
        raise ValueError(f"{folder.path}: {which}; a run is uploaded when its training is done")
    names = list(final)
    if "checkpoints" in include:
        names += [name for save in saves if not save.final for name in save.files]
    if "state" in include:
        names.append(folder.state_path.name)
    if "config" in include:
        names.append("config.yaml")
    paths = [file for name in names for file in _files(folder.path / name)]
    if "samples" in include:
        paths += shown_files(folder.samples_dir)
    card = folder.path / CARD
    return [path.relative_to(folder.path).as_posix() for path in [*([card] if card.exists() else []), *paths]]


def shown_files(samples: Path) -> list[Path]:
    """The pictures of the last step with the videos of the same names, and the contact sheet."""
    pictures = last_pictures(samples)
    videos = [path.with_suffix(".mp4") for path in pictures if path.with_suffix(".mp4").exists()]
    sheet = samples / "contact_sheet.png"
    return [*pictures, *videos, *([sheet] if sheet.exists() else [])]


def last_pictures(samples: Path) -> list[Path]:
    """The sample pictures of the last step that has any, by their index."""
    newest: dict[tuple[int, int], Path] = {}
    for path in sorted(samples.iterdir()) if samples.is_dir() else []:
        step, _, index = path.stem.partition("__")[2].partition("_")
        if step.isdigit() and index.isdigit() and path.suffix != ".mp4" and not path.name.startswith("."):
            newest[int(step), int(index)] = path  # of one made twice the later, by the time at the front of its name
    last = max((step for step, _ in newest), default=0)
    return [path for (step, _), path in sorted(newest.items()) if step == last]


def upload(folder: RunFolder, repository: str, private: bool, include: Collection[str]) -> str:
    """Upload a finished run; returns the address. Raises NotUploaded; the folder is left as it is in any case."""
    from huggingface_hub import HfApi

    try:
        names = files_of(folder, include)
        api = HfApi()
        made = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and api.model_info(made.repo_id).private is False:
            raise ValueError("it is there and public, but should be private")
        operations = list(_operations(api, folder.path, names, made.repo_id))
        api.create_commit(made.repo_id, operations, commit_message=f"Upload {folder.name} with aitk")
    # whatever the client raises, of its own, of httpx or of hf_xet: a training of days must not end as a failure
    except Exception as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise NotUploaded(
            f"not uploaded to {repository}: {reason}. Everything is in {folder.path}; "
            f"upload it later with: {command(folder.path, repository)}"
        ) from error
    return str(made)


def command(folder: Path, repository: str) -> str:
    """The command that repeats an upload."""
    return f"aitk publish {shlex.quote(str(folder))} --repo {repository}"


def settings(folder: Path) -> dict[str, Any]:
    """The section `save` of a run's resolved config; empty if it cannot be read."""
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        save = found["config"]["process"][0].get("save") or {}
    except (OSError, ValueError, yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError):
        return {}
    return {key: os.path.expandvars(value) if isinstance(value, str) else value for key, value in save.items()}


def _operations(api: Any, folder: Path, names: list[str], repository: str) -> Iterator[Any]:
    from huggingface_hub import CommitOperationAdd

    for name in names:
        source: Any = folder / name
        if name == CARD:
            text = source.read_text(encoding="utf-8")
            if is_untouched(text):
                if not _may_replace_card(api, repository):
                    print(f"{repository}: its model card was edited there, and stays as it is")
                    continue
                source = sealed(uploaded(unsealed(text), repository)).encode()
        yield CommitOperationAdd(name, source)


def _may_replace_card(api: Any, repository: str) -> bool:
    """Whether the repository has no card, or one that nobody has edited."""
    if not api.file_exists(repository, CARD):
        return True
    return is_untouched(Path(api.hf_hub_download(repository, CARD)).read_text(encoding="utf-8"))


def _files(path: Path) -> list[Path]:
    """A file, or all files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.exists() else []
