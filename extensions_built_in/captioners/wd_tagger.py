"""A tagger in the manner of WD: a picture classifier with one probability per tag, and the names in a table.

The table selected_tags.csv has a row per output, with a category: 9 for ratings, 0 for general tags, 4 for characters.
What loads: any classifier of transformers (ViT, Swin, SwinV2, ...) saved in its format beside that table; and the
published checkpoints (SmilingWolf/wd-*-tagger-v3), which are timm's, through transformers' wrapper if timm is there.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from toolkit.captioning.captioner import Subject
from toolkit.captioning.loading import load_model, on_device, read_config
from toolkit.context import Context
from toolkit.models.hub import Root

RATING, GENERAL, CHARACTER = 9, 0, 4
TWO_LETTERS = re.compile(r"[^\W\d_]{2}")


@dataclass(frozen=True)
class Look:
    """What the model expects of its input."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool

    def pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures on white squares: [B, 3, size, size]."""
        squares = np.stack([np.asarray(on_square(image, self.size)) for image in images])
        scaled = (torch.from_numpy(squares).float() / 255 - torch.tensor(self.mean)) / torch.tensor(self.std)
        return rearrange(scaled.flip(-1) if self.is_bgr else scaled, "b h w c -> b c h w").contiguous()


@dataclass(frozen=True)
class Choosing:
    """Which tags are written, and how."""

    general: float
    character: float
    rating: bool
    replace_underscores: bool
    exclude: frozenset[str]
    max_tags: int | None
    separator: str

    def text(self, names: Sequence[str], categories: Sequence[int], chances: Sequence[float]) -> str:
        """The likeliest first; characters before general tags, a rating before both."""
        least = {GENERAL: self.general, CHARACTER: self.character}
        order = sorted(range(len(names)), key=lambda index: (-chances[index], index))
        order = [index for index in order if self._shown(names[index]) not in self.exclude]
        kept = [i for i in order if categories[i] in least and chances[i] >= least[categories[i]]][: self.max_tags]
        kept.sort(key=lambda index: categories[index] != CHARACTER)
        first = [index for index in order if self.rating and categories[index] == RATING][:1]
        return self.separator.join(self._shown(names[index]) for index in [*first, *kept])

    def _shown(self, name: str) -> str:
        """A tag in words; faces such as ^_^ and o_o, which have no two letters side by side, stay."""
        return name.replace("_", " ") if self.replace_underscores and TWO_LETTERS.search(name) else name


class Tagger:
    """A classifier and the names of its outputs."""

    def __init__(
        self, model: Any, look: Look, names: Sequence[str], categories: Sequence[int], choosing: Choosing
    ) -> None:
        self.model, self.look, self.names, self.categories, self.choosing = model, look, names, categories, choosing

    @classmethod
    def load(cls, context: Context, section: Any) -> Tagger:
        """From a folder or the Hub."""
        from transformers import AutoModelForImageClassification

        name, root = section.model_name_or_path, Root(section.model_name_or_path)
        config = read_config(section, ())
        is_timm = "pretrained_cfg" in config or config.get("model_type") == "timm_wrapper"
        if is_timm and importlib.util.find_spec("timm") is None:
            raise ValueError(f"{name} is a checkpoint of timm, which is not installed: pip install timm")
        names, categories = read_tags(root.file("selected_tags.csv"))
        model = load_model(AutoModelForImageClassification, section, context)
        if model.config.num_labels != len(names):
            raise ValueError(
                f"{name} has {model.config.num_labels} outputs, but selected_tags.csv names {len(names)} tags"
            )
        order = section.channel_order if section.channel_order != "auto" else "bgr" if is_timm else "rgb"
        look = _look_of_timm(config, order == "bgr") if is_timm else _look(root, config, order == "bgr")
        choosing = Choosing(
            section.general_threshold,
            section.character_threshold,
            section.rating,
            section.replace_underscores,
            frozenset(section.exclude_tags) | {tag.replace("_", " ") for tag in section.exclude_tags},
            section.max_tags,
            section.separator,
        )
        return cls(model, look, names, categories, choosing)

    def describe(self, subjects: Sequence[Subject], min_words: int = 1) -> list[str]:
        """The tags of each picture; there is no way to ask for more of them."""
        pixels = self.look.pixels([subject.image for subject in subjects])
        with torch.inference_mode():
            logits = self.model(**on_device({"pixel_values": pixels}, self.model)).logits
        chances = logits.float().sigmoid().tolist()
        return [self.choosing.text(self.names, self.categories, row) for row in chances]


def read_tags(file: Path) -> tuple[list[str], list[int]]:
    """(names, categories) of a table with the columns `name` and `category`."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return [row["name"] for row in rows], [int(row["category"]) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: needs the columns name and category (a number)") from error


def on_square(image: Image.Image, size: int) -> Image.Image:
    """The whole picture in the middle of a white square of `size` pixels."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((size, size), Image.Resampling.BICUBIC)


def _look(root: Root, config: dict[str, Any], is_bgr: bool) -> Look:
    """From a checkpoint of transformers."""
    found = root.find(["preprocessor_config.json"])
    given = json.loads(found.read_text(encoding="utf-8")) if found else {}
    size = config.get("image_size") or 448
    mean, std = (tuple(given.get(key) or (0.5,) * 3) for key in ("image_mean", "image_std"))
    return Look(size if isinstance(size, int) else size[-1], mean, std, is_bgr)


def _look_of_timm(config: dict[str, Any], is_bgr: bool) -> Look:
    """From a checkpoint of timm."""
    given = config.get("pretrained_cfg", {})
    size = given.get("input_size") or (3, 448, 448)
    mean, std = (tuple(given.get(key) or (0.5,) * 3) for key in ("mean", "std"))
    return Look(size[-1], mean, std, is_bgr)
