"""The `datasets` of a config become items: scan, match, expand, report; no weight is loaded, no pixel read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import Size, bucket_for, fixed_for, square_for
from toolkit.data.frames import Clip, FrameRule
from toolkit.data.items import DatasetItems, Items
from toolkit.data.pictures.offered import reference_rule
from toolkit.data.pictures.references import Drawn, Found, check_alpha, match, shape_problem
from toolkit.data.records import Record, Records
from toolkit.data.rules import read_frame_rule, read_treatment
from toolkit.data.scanning.scan import BARE
from toolkit.data.selection import select
from toolkit.data.sources.choice import read_source
from toolkit.data.sources.reading import Reading
from toolkit.data.treatment import Treatment


class Taken(Protocol):
    """What a model takes: the part of a family's facts that decides what a sample is."""

    @property
    def frame_stride(self) -> int: ...
    @property
    def references(self) -> str: ...
    @property
    def needs_references(self) -> bool: ...


@dataclass(frozen=True)
class Pictures:
    """A model that takes pictures and captions alone."""

    frame_stride: int = 0
    references: str = "none"
    needs_references: bool = False


PICTURES = Pictures()


def read_datasets(
    sections: Sequence[DatasetSection],
    divisor: int,
    batch_size: int,
    trigger: str | None,
    use_captions: bool = True,
    taken: Taken = PICTURES,
    *,
    index: Path | None = None,
    cache: Path | None = None,
    reg_weight: float = 1.0,
) -> Items:
    """Scan every data set; sizes are multiples of `divisor`. Without captions, the trigger is all there is of a text.

    `taken` is what the model takes beside pictures. What is learned about files is kept in the folder `index` for the
    next start; pictures that are no files of their own are unpacked into the folder `cache`. `reg_weight` is the
    factor of the loss of regularization pictures. Raises ValueError for an empty or missing folder, for a picture
    without the mask or the reference that it needs, and for keys that ask for what the model does not take.
    """
    problems: list[str] = []
    found = [
        _read(number, section, divisor, batch_size, trigger, use_captions, taken, index, cache, reg_weight, problems)
        for number, section in enumerate(sections)
    ]
    return Items(found, problems)


def _read(
    number: int,
    section: DatasetSection,
    divisor: int,
    batch_size: int,
    trigger: str | None,
    use_captions: bool,
    taken: Taken,
    index: Path | None,
    cache: Path | None,
    reg_weight: float,
    problems: list[str],
) -> DatasetItems:
    frames = read_frame_rule(section, taken.frame_stride, problems)
    reading = Reading(
        section.caption_type or section.caption_ext,
        section.strict,
        videos=section.has_video,
        without=tuple(folder for folders in section.matched_folders.values() for folder in folders),
        image_column=section.image_column,
        caption_column=section.caption_column,
        index=index,
        cache=cache,
    )
    scanned = read_source(section.folder, reading)
    problems += [line for line in scanned.problems if not (section.default_caption and BARE in line)]
    records = select(scanned.records, section.min_resolution, section.max_aspect, str(section.folder), problems)
    treatment = read_treatment(section, number, batch_size, trigger, use_captions, frames, reg_weight)
    items = DatasetItems(
        records,
        section.resolutions,
        partial(_size, section, divisor),
        treatment,
        repeats=section.num_repeats,
        weight=section.weight,
        flip_x=section.flip_x,
        flip_y=section.flip_y,
        references=reference_rule(records, section, treatment, taken, problems),
        masks=_masks(section, records, problems),
        pairs=_matched(section, records, "unconditional_path", problems),
        clip_images=_clip_images(section, records, problems),
    )
    problems += _remarks(section, treatment, records)
    _try_augmentations(section, treatment, items)
    return items


def _size(section: DatasetSection, divisor: int, width: int, height: int, resolution: int) -> Size:
    if not section.buckets:
        return fixed_for(resolution, divisor)
    size_of = square_for if section.square_crop else bucket_for
    return size_of(width, height, resolution, divisor, section.scale)


def _remarks(section: DatasetSection, treatment: Treatment, records: Records) -> list[str]:
    """What is worth knowing about a data set before it is trained on."""
    lines = []
    if line := _short_videos(section, treatment.frames, records):
        lines.append(line)
    if not section.buckets:
        side = max(section.resolutions)
        small = np.flatnonzero(section.scale * np.minimum(records.widths, records.heights) < side)
        if len(small):
            lines.append(
                f"{section.folder}: without buckets, {len(small)} of {len(records)} pictures are enlarged "
                f"to {side} x {side} (first: {records[int(small[0])].name})"
            )
    if section.use_short_captions and not any(records[row].short_caption for row in range(len(records))):
        lines.append(f"{section.folder}: use_short_captions has no effect; there is no caption_short")
    return lines


def _short_videos(section: DatasetSection, frames: FrameRule | None, records: Records) -> str:
    """What to say about videos that have fewer frames than are asked for; empty if there are none."""
    if frames is None:
        return ""
    clips = records.clips
    videos = np.flatnonzero(~np.isnan(clips[:, 0])).tolist()
    short = [row for row in videos if frames.repeats_frames(Clip(*clips[row].tolist()))]
    return (
        f"{section.folder}: {len(short)} of {len(videos)} videos have fewer frames than are asked for; "
        f"some of them come twice (first: {records[short[0]].name})"
        if short
        else ""
    )


def _try_augmentations(section: DatasetSection, treatment: Treatment, items: DatasetItems) -> None:
    """Raise ValueError that names what is wrong with an augmentation, before it is needed."""
    tried = {"augmentations": treatment.augment, "clip_image_augmentations": treatment.clip_augment}
    if not any(tried.values()):
        return
    smallest = items.sizes()[:, :2].min(axis=0)
    for key, augment in tried.items():
        try:
            if augment is not None:
                augment.check((int(smallest[0]), int(smallest[1])))
        except ValueError as error:
            raise ValueError(f"{section.folder}: {key}: {error}") from error


def _masks(section: DatasetSection, records: Records, problems: list[str]) -> Found | None:
    if section.alpha_mask:
        check_alpha(records)
    return _matched(section, records, "mask_path", problems)


def _matched(section: DatasetSection, records: Records, key: str, problems: list[str]) -> Found | None:
    """The pictures of the one folder that `key` names, one for each record."""
    folders = section.matched_folders[key]
    if not folders:
        return None
    found = match(records, folders[0], key)
    if line := shape_problem(records, found, key):
        problems.append(f"{section.folder}: {line}")
    return found


def _clip_images(section: DatasetSection, records: Records, problems: list[str]) -> Sequence[Record] | None:
    if section.clip_image_from_same_folder:
        return Drawn(records)
    folders = section.matched_folders["clip_image_path"]
    return match(records, folders[0], "clip_image_path") if folders else None
