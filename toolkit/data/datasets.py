"""The `datasets` of a config become items: scan, expand, report; no weight is loaded and no pixel read for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import Size
from toolkit.data.caption import CaptionRule
from toolkit.data.frames import FrameRule, snap
from toolkit.data.image import Color
from toolkit.data.items import Item, bucket_names, bucket_table, expand
from toolkit.data.references import References, check_holes, draw, match
from toolkit.data.scan import Record, scan


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
        return replace(
            self,
            items=[self.items[index] for index in kept],
            batch_sizes=[self.batch_sizes[index] for index in kept],
        )

    def describe(self) -> list[str]:
        """What was found: problems first, then the table of buckets."""
        buckets = bucket_names(self.items)
        table = ", ".join(f"{name}: {count}" for name, count in buckets.items())
        return [*self.problems, f"{len(self.items)} training samples in {len(buckets)} buckets ({table})"]


def read_datasets(
    sections: Sequence[DatasetSection],
    divisor: int,
    batch_size: int,
    trigger: str | None,
    use_captions: bool = True,
    taken: Taken = PICTURES,
) -> Items:
    """Scan every data set; sizes are multiples of `divisor`. Without captions, the trigger is all there is of a text.

    `taken` is what the model takes beside pictures. Raises ValueError for an empty or missing folder, for a picture
    without the reference that it needs, and for keys that ask for what the model does not take.
    """
    items: list[Item] = []
    batch_sizes: list[int] = []
    problems: list[str] = []
    for number, section in enumerate(sections):
        frames = _frame_rule(section, taken.frame_stride, problems)
        found = scan(
            section.folder,
            section.caption_type or section.caption_ext,
            section.strict,
            videos=section.has_video,
            without=(*section.control_folders, *section.inpaint_folders),
        )
        problems += found.problems
        records = found.records if use_captions else [replace(record, caption=None) for record in found.records]
        problems += _remarks(section, frames, records)
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
            caption=_caption_rule(section, trigger, use_captions),
            weight=section.loss_multiplier,
            frames=frames,
        )
        added = _with_references(added, records, section, taken, problems)
        items += added
        batch_sizes += [section.batch_size or batch_size] * len(added)
    return Items(items, batch_sizes, [s.background for s in sections], [s.strict for s in sections], problems)


def _frame_rule(section: DatasetSection, stride: int, problems: list[str]) -> FrameRule | None:
    """How frames are chosen, where the model is one for video."""
    if not stride:
        if section.has_video:
            key = "auto_frame_count" if section.auto_frame_count else "num_frames"
            raise ValueError(f"{section.folder}: {key} is for video, but the model is one for pictures; remove it")
        return None
    count = snap(section.num_frames, stride)
    if count != section.num_frames and not section.auto_frame_count:
        problems.append(
            f"{section.folder}: num_frames {section.num_frames} is trained as {count}; "
            f"the model takes {stride} x n + 1 frames"
        )
    return FrameRule(
        count,
        stride,
        section.fps,
        section.shrink_video_to_frames,
        section.auto_frame_count,
        section.trim_auto_frame_count_tail,
    )


def _remarks(section: DatasetSection, frames: FrameRule | None, records: Sequence[Record]) -> list[str]:
    """What is worth knowing about a data set before it is trained on."""
    lines = []
    if section.random_crop and (section.cache_latents or section.cache_latents_to_disk):
        lines.append(f"{section.folder}: random_crop draws a new crop every time, so its latents are not cached")
    videos = [(record.name, record.clip) for record in records if record.clip]
    short = [name for name, clip in videos if frames and frames.repeats_frames(clip)]
    if short:
        lines.append(
            f"{section.folder}: {len(short)} of {len(videos)} videos have fewer frames than are asked for; "
            f"some of them come twice (first: {short[0]})"
        )
    return lines


def _caption_rule(section: DatasetSection, trigger: str | None, use_captions: bool) -> CaptionRule:
    return CaptionRule(
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


def _with_references(
    items: list[Item], records: Sequence[Record], section: DatasetSection, taken: Taken, problems: list[str]
) -> list[Item]:
    """The items with the pictures that condition them."""
    _check_references(section, taken)
    if taken.references == "first_frame":
        return [_given_first_frame(item, section.do_i2v, taken.needs_references) for item in items]
    if section.do_i2v and section.has_video:
        problems.append(f"{section.folder}: do_i2v has no effect, because the model takes no first frame")
    like_target = taken.references == "channels" or not section.full_size_control_images
    offered = partial(References, like_target=like_target, background=section.control_transparent_color)
    if section.control_from_same_folder:
        count = section.num_controls_from_same_folder
        drawn = [draw(records, item.record, count, item.id) for item in items]
        if not all(drawn):
            raise ValueError(f"{section.folder}: control_from_same_folder needs a second picture in every sub-folder")
        return [replace(item, references=offered(some)) for item, some in zip(items, drawn, strict=True)]
    holed = match(records, section.inpaint_folders, "inpaint_path")
    check_holes(holed)
    plain = match(records, section.control_folders, "control_path")
    found = {
        record: offered((*first, *rest), num_holed=len(first))
        for record, first, rest in zip(records, holed, plain, strict=True)
    }
    return [replace(item, references=found[item.record]) for item in items]


def _check_references(section: DatasetSection, taken: Taken) -> None:
    """Raise ValueError if a data set asks for what the model does not take, or lacks what it needs."""
    keys = {
        "inpaint_path": section.inpaint_folders,
        "control_path": section.control_folders,
        "control_from_same_folder": section.control_from_same_folder,
    }
    asked = next((key for key, value in keys.items() if value), "")
    if asked and taken.references not in ("tokens", "channels"):
        takes = "no reference pictures"
        if taken.references == "first_frame":
            takes = "only the first frame of the video itself (do_i2v)"
        raise ValueError(f"{section.folder}: {asked} is set, but the model takes {takes}; remove it")
    if section.inpaint_folders and taken.references != "channels":
        raise ValueError(f"{section.folder}: inpaint_path is set, but the model paints no holes; remove it")
    if not asked and taken.needs_references and taken.references != "first_frame":
        raise ValueError(f"{section.folder}: the model needs reference pictures; name their folder as control_path")


def _given_first_frame(item: Item, is_asked: bool, is_needed: bool) -> Item:
    """The item with its first frame as condition; a single frame would leave nothing to learn."""
    if is_needed or (is_asked and item.num_frames > 1):
        return replace(item, references=References(first_frame=True))
    return item


def read_triggers(value: str | Sequence[str]) -> tuple[str, ...]:
    """Random triggers as a list, or from a text file with one per line."""
    if isinstance(value, str):
        value = Path(value).expanduser().read_text(encoding="utf-8-sig").splitlines()
    return tuple(word.strip() for word in value if word.strip())
