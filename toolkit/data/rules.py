"""The keys of a data set, read as the rules that its samples follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.config.sections.augmentation import AugmentationStep
from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.caption import CaptionRule
from toolkit.data.frames import FrameRule, snap
from toolkit.data.pictures.augment import Augment, read_steps
from toolkit.data.pictures.masks import MaskRule
from toolkit.data.treatment import Treatment


def read_treatment(
    section: DatasetSection,
    number: int,
    batch_size: int,
    trigger: str | None,
    use_captions: bool,
    frames: FrameRule | None,
    reg_weight: float,
) -> Treatment:
    """What the keys of data set `number` say about each of its samples; the arguments are what is said elsewhere."""
    return Treatment(
        dataset=number,
        batch_size=section.batch_size or batch_size,
        weight=section.loss_multiplier * (reg_weight if section.is_reg else 1.0),
        background=section.background,
        strict=section.strict,
        is_reg=section.is_reg,
        keeps_base=section.prior_reg,
        strength=section.network_weight,
        kind=section.diff_output_preservation_class,
        caption=_caption_rule(section, trigger, use_captions),
        frames=frames,
        scale=section.scale,
        random_crop=section.random_crop,
        random_scale=section.random_scale,
        augment=_augment(section),
        clip_augment=_clip_augment(section),
        mask=_mask_rule(section),
        guidance_type=section.guidance_type if section.unconditional_path else "",
        num_variants=section.num_variants,
    )


def read_frame_rule(section: DatasetSection, stride: int, problems: list[str]) -> FrameRule | None:
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


def read_triggers(value: str | Sequence[str]) -> tuple[str, ...]:
    """Random triggers as a list, or from a text file with one per line."""
    if isinstance(value, str):
        value = Path(value).expanduser().read_text(encoding="utf-8-sig").splitlines()
    return tuple(word.strip() for word in value if word.strip())


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
        is_reg=section.is_reg or section.prior_reg,
        replacements=tuple((old, new) for old, _, new in (entry.partition("|") for entry in section.replacements)),
        is_short=section.use_short_captions,
        is_prepended=section.captions == "prepend" and bool(section.default_caption),
        is_read=use_captions and section.captions != "ignore",
    )


def _augment(section: DatasetSection) -> Augment | None:
    steps = read_steps(section.augments, _pairs(section.augmentations))
    return Augment(steps, section.shuffle_augmentations, section.replay_transforms) if steps else None


def _clip_augment(section: DatasetSection) -> Augment | None:
    steps = read_steps((), _pairs(section.clip_image_augmentations))
    return Augment(steps, section.clip_image_shuffle_augmentations) if steps else None


def _pairs(steps: Sequence[AugmentationStep] | None) -> list[tuple[str, dict[str, object]]]:
    return [(step.method, step.params) for step in steps or ()]


def _mask_rule(section: DatasetSection) -> MaskRule | None:
    return MaskRule(section.alpha_mask, section.invert_mask, section.mask_min_value) if section.has_mask else None
