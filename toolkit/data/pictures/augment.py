"""Augmentations: changes of the pixels of a sample by albumentations, drawn anew in every epoch.

Every step draws from a stream of its own, which depends on nothing but the sample, the epoch and its place in the list.
So the same movement can be repeated on a mask or a control image without the picture.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from toolkit.config.errors import KeyPath
from toolkit.config.names import nearest
from toolkit.config.section import Remarked
from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import Size, crop_for
from toolkit.data.rng import seed_for

MISSING = "augmentations need the library albumentations: pip install 'aitk[augment]'"
ALIASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ColorJitter": (
        "ColorJitter",
        {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "p": 1.0},
    ),
    "RandomEqualize": ("Equalize", {"p": 0.2}),
}
"""The names that ai-toolkit knows in `augments`, as steps of albumentations."""


@dataclass(frozen=True)
class Step:
    """One transform of albumentations."""

    method: str
    params: str = "{}"
    """Its arguments as JSON, which keeps a step hashable."""


@dataclass(frozen=True)
class Augment:
    """The augmentations of a data set."""

    steps: tuple[Step, ...]
    shuffle: bool = False
    """In another order for every sample and epoch."""
    replay: bool = True
    """What moves pixels moves those of control images and pair pictures too. Those of masks always move."""

    def view(self) -> dict[str, object]:
        """As plain JSON values; another version of the library may draw and change otherwise."""
        steps = [[step.method, json.loads(step.params)] for step in self.steps]
        return {"steps": steps, "shuffle": self.shuffle, "replay": self.replay, "library": _library().__version__}

    @property
    def moves(self) -> bool:
        """Whether a step moves pixels, so that what belongs to the picture has to follow."""
        return any(_is_geometric(transform) for transform in self._transforms())

    def change(self, pixels: np.ndarray, seed: int, epoch: int, sample_id: str) -> np.ndarray:
        """The picture uint8 [H, W, 3] with every step applied, at the same size."""
        return self._apply(pixels, seed, epoch, sample_id)

    def move(self, pixels: np.ndarray, seed: int, epoch: int, sample_id: str) -> np.ndarray:
        """Something of the picture's size, uint8 [H, W(, C)], moved as the picture is, its colors as they are.

        What comes in from outside the picture is black, so in a mask it does not count.
        """
        return self._apply(pixels, seed, epoch, sample_id, only_moved=True)

    def check(self, size: Size) -> None:
        """Try the steps on a picture of this size; raises ValueError that names what is wrong with which step."""
        width, height = size
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        for step, transform in zip(self.steps, self._transforms(), strict=True):
            transform.p = 1.0
            transform.set_random_seed(0)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    changed = transform(image=noise.copy())["image"]
            except Exception as error:  # whatever a foreign library raises
                raise ValueError(f"{step.method}: {_first_line(error)} (tried at {width} x {height})") from error
            if changed.dtype != np.uint8 or changed.ndim != 3 or changed.shape[2] != 3:
                raise ValueError(f"{step.method}: does not give a picture; leave it out")

    def _transforms(self) -> list[Any]:
        return [build(step) for step in self.steps]

    def _apply(self, pixels: np.ndarray, seed: int, epoch: int, sample_id: str, only_moved: bool = False) -> np.ndarray:
        height, width = pixels.shape[:2]
        for index, transform in self._ordered(seed, epoch, sample_id):
            if only_moved and not _is_geometric(transform):
                continue
            # the library takes 32 bits
            transform.set_random_seed(seed_for(seed, epoch, sample_id, f"augment {index}") % 2**32)
            pixels = _moved(transform, pixels) if only_moved else transform(image=pixels)["image"]
        return _at_size(pixels, (width, height))

    def _ordered(self, seed: int, epoch: int, sample_id: str) -> Iterator[tuple[int, Any]]:
        order = list(range(len(self.steps)))
        if self.shuffle:
            random.Random(seed_for(seed, epoch, sample_id, "augment order")).shuffle(order)
        # built anew for every picture: they hold their random state, and threads may share this object
        return ((index, build(self.steps[index])) for index in order)


def read_steps(names: Sequence[str], steps: Sequence[tuple[str, dict[str, Any]]]) -> tuple[Step, ...]:
    """The steps of `augments` and of `augmentations`, in this order."""
    named = [ALIASES.get(name, (name, {})) for name in names]
    return tuple(Step(method, json.dumps(params, sort_keys=True)) for method, params in [*named, *steps])


def build(step: Step) -> Any:
    """A transform of albumentations; raises ValueError that says what is wrong with the step."""
    library = _library()
    kind = getattr(library, step.method, None)
    if not (inspect.isclass(kind) and issubclass(kind, library.BasicTransform)):
        near = nearest(step.method, _names(library))
        raise ValueError(f"albumentations has no transform {step.method}{f'; did you mean {near}?' if near else ''}")
    params = json.loads(step.params)
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    for name in params:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}? " if near else ""
            raise ValueError(f"{step.method}: no parameter {name}; {hint}(known: {', '.join(known)})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(**{name: _constant(value) for name, value in params.items()})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{step.method}: {_first_line(error)}") from error


def wrong_steps(section: DatasetSection) -> Iterator[Remarked]:
    """What is wrong with the augmentations of a data set, at the key that should be changed."""
    named = enumerate(read_steps(section.augments, ()))
    steps: list[tuple[KeyPath, Step]] = [(("augments", number), step) for number, step in named]
    for key in ("augmentations", "clip_image_augmentations"):
        found = [(step.method, step.params) for step in getattr(section, key) or ()]
        steps += [((key, number), step) for number, step in enumerate(read_steps((), found))]
    if steps and find_spec("albumentations") is None:
        yield steps[0][0][:1], MISSING
        return
    for path, step in steps:
        try:
            build(step)
        except ValueError as error:
            yield path, str(error)


def _library() -> Any:
    """The library, without its look for newer versions on the network, and without torch: too large for workers."""
    if "albumentations" in sys.modules:
        return sys.modules["albumentations"]
    if find_spec("albumentations") is None:
        raise ValueError(MISSING)
    asked, part = os.environ.get("NO_ALBUMENTATIONS_UPDATE"), "albumentations.pytorch"
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    sys.modules[part] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("albumentations")
    finally:
        del sys.modules[part]
        if asked is None:
            del os.environ["NO_ALBUMENTATIONS_UPDATE"]
        else:
            os.environ["NO_ALBUMENTATIONS_UPDATE"] = asked


def _names(library: Any) -> list[str]:
    kinds = inspect.getmembers(library, inspect.isclass)
    return [name for name, kind in kinds if issubclass(kind, library.BasicTransform)]


def _is_geometric(transform: Any) -> bool:
    return isinstance(transform, _library().DualTransform)


def _moved(transform: Any, pixels: np.ndarray) -> np.ndarray:
    """As the library treats a mask, but with the interpolation of a picture."""
    if hasattr(transform, "mask_interpolation") and hasattr(transform, "interpolation"):
        transform.mask_interpolation = transform.interpolation
    blank = np.zeros((*pixels.shape[:2], 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved: np.ndarray = transform(image=blank, mask=pixels)["mask"]
    return moved


def _at_size(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Back at its size, where a step crops, pads or turns the picture: covered, and the middle kept."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(pixels)
    left, top, right, bottom = crop_for(width, height, size)
    box = (left * width, top * height, min(right * width, width), min(bottom * height, height))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=box))


def _constant(value: Any) -> Any:
    """`cv2.BORDER_REFLECT` as the number that it stands for."""
    if not isinstance(value, str) or not value.lower().startswith("cv2."):
        return value
    number = getattr(importlib.import_module("cv2"), value[4:].upper(), None)
    if not isinstance(number, int):
        raise ValueError(f"OpenCV has no constant {value[4:].upper()}")
    return number


def _first_line(error: Exception) -> str:
    """What pydantic and albumentations say, without links and lists."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 2 and "validation error" in lines[0]:
        return f"{lines[1]}: {lines[2].partition(' [type=')[0]}"
    return lines[0] if lines else type(error).__name__
