"""How the DreamBooth scripts and notebooks spell the keys of `dreambooth`; a part of the table in spellings.py."""

from __future__ import annotations

from typing import Any

from toolkit.config.document import Document
from toolkit.config.errors import KeyPath
from toolkit.config.spelling import Rewrite, Spelling, anything

SECTION = "dreambooth"
OWN = ("instance_prompt", "class_prompt", "num_class_images", "sample_batch_size")
RENAMED = {"class_data_dir": "class_folder", "prior_loss_weight": "prior_weight"}


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _into(key: str) -> Rewrite:
    """The value belongs to this key of the section, which is made where it is missing."""

    def rewrite(document: Document, base: KeyPath, path: KeyPath) -> None:
        target = (*base, SECTION, key)
        _make_section(document, base)
        if document.get(target) is None:
            document.notice(path, f"read as {SECTION}.{key}")
            document.duplicate(path, target)
        elif document.get(target) != document.get(path):
            document.notice(path, f"has no effect, because {SECTION}.{key} is set")
        document.remove(path)

    return rewrite


def _make_section(document: Document, base: KeyPath) -> None:
    if document.get((*base, SECTION)) is None:
        document.set((*base, SECTION), {})


def _read_flag(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`with_prior_preservation: false` is `prior_weight: 0`; true is what a class prompt means anyway."""
    weight = (*base, SECTION, "prior_weight")
    if document.get(path) is False:
        _make_section(document, base)
        document.notice(path, f"read as {SECTION}.prior_weight: 0")
        if document.get(weight) is None:
            document.duplicate(path, weight)
        document.set(weight, 0)
    document.remove(path)


def _read_folder(document: Document, base: KeyPath, path: KeyPath) -> None:
    """`instance_data_dir` is the folder of a data set: of the first one if that has none, else of one more."""
    datasets = (*base, "datasets")
    if not isinstance(document.get(datasets), list) or not document.get(datasets):
        document.set(datasets, [{}])
    first = document.get((*datasets, 0))
    place = 0
    if isinstance(first, dict) and (first.get("folder_path") or first.get("dataset_path")):
        place = len(document.get(datasets))
        document.set(datasets, [*document.get(datasets), {}])
    document.notice(path, f"read as datasets[{place}].folder_path")
    document.duplicate(path, (*datasets, place, "folder_path"))
    document.remove(path)


def _everywhere(key: str, applies: Any, rewrite: Rewrite) -> list[Spelling]:
    """The key in the section, and beside it."""
    return [Spelling(path, applies, rewrite, SECTION) for path in (f"{SECTION}.{key}", key)]


SCRIPT_SPELLINGS: tuple[Spelling, ...] = (
    *_everywhere("with_prior_preservation", _is_flag, _read_flag),
    *_everywhere("instance_data_dir", anything, _read_folder),
    *(one for old, key in RENAMED.items() for one in _everywhere(old, anything, _into(key))),
    *(Spelling(key, anything, _into(key), SECTION) for key in OWN),
)
