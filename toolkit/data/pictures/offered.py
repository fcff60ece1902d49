"""Which reference pictures a data set's keys offer to the model, and whether the model takes what they offer."""

from __future__ import annotations

from functools import partial
from typing import Protocol

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.frames import FrameRule
from toolkit.data.items import ReferenceRule
from toolkit.data.pictures.references import Found, Neighbors, References, check_holes, match
from toolkit.data.records import Records
from toolkit.data.treatment import Treatment


class TakesReferences(Protocol):
    """The part of a family's facts that decides about references."""

    @property
    def references(self) -> str: ...
    @property
    def needs_references(self) -> bool: ...


def reference_rule(
    records: Records, section: DatasetSection, treatment: Treatment, taken: TakesReferences, problems: list[str]
) -> ReferenceRule | None:
    """Which pictures condition the items of a data set; raises ValueError for what the model does not take."""
    _check(section, taken)
    if taken.references == "first_frame":
        if not (taken.needs_references or section.do_i2v):
            return None
        return partial(_first_frame, records, treatment.frames, taken.needs_references)
    if not (section.control_from_same_folder or section.inpaint_folders or section.control_folders):
        return None
    offered = partial(
        References,
        like_target=_follows(section, treatment, taken, problems),
        background=section.control_transparent_color,
    )
    if section.control_from_same_folder:
        neighbors = Neighbors(records)
        if neighbors.alone:
            raise ValueError(f"{section.folder}: control_from_same_folder needs a second picture in every sub-folder")
        count = section.num_controls_from_same_folder
        return lambda row, item_id: offered(neighbors.draw(row, count, item_id))
    holed = _columns(records, section, "inpaint_path")
    check_holes(holed)
    plain = _columns(records, section, "control_path")
    return lambda row, _: offered(tuple(column[row] for column in (*holed, *plain)), num_holed=len(holed))


def _columns(records: Records, section: DatasetSection, key: str) -> list[Found]:
    return [match(records, folder, key) for folder in section.matched_folders[key]]


def _follows(section: DatasetSection, treatment: Treatment, taken: TakesReferences, problems: list[str]) -> bool:
    """Whether references are cropped as their picture is."""
    if taken.references == "channels" or not section.full_size_control_images:
        return True
    augment = treatment.augment
    if augment is None or not augment.replay or not augment.moves:
        return False
    problems.append(
        f"{section.folder}: augmentations move the pictures, so control images are cropped and moved as they are "
        "(replay_transforms: false keeps them whole)"
    )
    return True


def _first_frame(records: Records, frames: FrameRule | None, is_needed: bool, row: int, _: str) -> References:
    """The first frame as condition; a single frame would leave nothing to learn."""
    is_moving = frames is not None and frames.count(records[row].clip) > 1
    return References(first_frame=is_needed or is_moving)


def _check(section: DatasetSection, taken: TakesReferences) -> None:
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
