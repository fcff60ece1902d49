"""The `datasets` of a config become items: scan, expand, report; no weight is loaded and no pixel read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import Size
from toolkit.data.caption import CaptionRule
from toolkit.data.image import Color
from toolkit.data.items import Item, bucket_table, expand
from toolkit.data.scan import scan


@dataclass(frozen=True)
class Items:
    """All samples of a run."""

    items: list[Item]
    batch_sizes: list[int]
    """Per item."""
    backgrounds: list[Color]
    """Per data set: the color under transparent pixels."""
    strict: list[bool]
    """Per data set: whether a broken picture ends the run."""
    problems: list[str]
    """What was left out or is missing, one line each."""

    @property
    def buckets(self) -> dict[Size, int]:
        """(width, height) -> number of items."""
        return bucket_table(self.items)

    def without(self, ids: set[str]) -> Items:
        """These items but for some."""
        kept = [index for index, item in enumerate(self.items) if item.id not in ids]
        return Items(
            [self.items[index] for index in kept],
            [self.batch_sizes[index] for index in kept],
            self.backgrounds,
            self.strict,
            self.problems,
        )


def read_datasets(
    sections: Sequence[DatasetSection], divisor: int, batch_size: int, trigger: str | None, use_captions: bool = True
) -> Items:
    """Scan every data set; sizes are multiples of `divisor`. Without captions, the trigger is all there is of a text.

    Raises ValueError for an empty or missing folder.
    """
    items: list[Item] = []
    batch_sizes: list[int] = []
    problems: list[str] = []
    for number, section in enumerate(sections):
        found = scan(section.folder, section.caption_type or section.caption_ext, section.strict)
        problems += found.problems
        records = found.records if use_captions else [replace(record, caption=None) for record in found.records]
        if section.random_crop and (section.cache_latents or section.cache_latents_to_disk):
            problems.append(f"{section.folder}: random_crop draws a new crop every time, so its latents are not cached")
        rule = CaptionRule(
            trigger=section.trigger_word or trigger or "",
            default_caption=(use_captions and section.default_caption) or "",
            dropout=section.caption_dropout_rate,
            token_dropout=section.token_dropout_rate if use_captions else 0.0,
            keep_tokens=section.keep_tokens,
            shuffle=use_captions and section.shuffle_tokens,
            random_triggers=read_triggers(section.random_triggers) if use_captions else (),
            random_triggers_max=section.random_triggers_max,
            is_reg=section.is_reg,
        )
        added = expand(
            records,
            section.resolutions,
            divisor,
            dataset=number,
            repeats=section.num_repeats,
            flip_x=section.flip_x,
            flip_y=section.flip_y,
            scale=section.scale,
            square_crop=section.square_crop,
            random_crop=section.random_crop,
            caption=rule,
            weight=section.loss_multiplier,
        )
        items += added
        batch_sizes += [section.batch_size or batch_size] * len(added)
    return Items(items, batch_sizes, [s.background for s in sections], [s.strict for s in sections], problems)


def read_triggers(value: str | Sequence[str]) -> tuple[str, ...]:
    """Random triggers as a list, or from a text file with one per line."""
    if isinstance(value, str):
        value = Path(value).expanduser().read_text(encoding="utf-8-sig").splitlines()
    return tuple(word.strip() for word in value if word.strip())
