"""Every key of a data set either changes what is trained, or is told by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.config import ConfigError, load, validate
from toolkit.config.section import state_of
from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Pictures, read_datasets
from toolkit.data.pictures.pixels import item_clip_image, item_mask, item_pair, item_pixels, item_references

Film = Callable[..., Path]
VIDEO = Pictures(frame_stride=4, references="first_frame")
TOKENS, CHANNELS = Pictures(references="tokens"), Pictures(references="channels")
EDITS = {"control_path": "other"}
CLIPS = {"folder_path": "clips", "num_frames": 5}

# key: what it is set to, what is set beside it both with and without the key, and the model
WORKING: dict[str, tuple[Any, dict[str, Any], Pictures]] = {
    "folder_path": ("clips/still", {}, Pictures()),
    "dataset_path": ("clips/still", {}, Pictures()),
    "batch_size": (3, {}, Pictures()),
    "strict": (True, {}, Pictures()),
    "image_column": ("image", {"folder_path": "set/list.jsonl"}, Pictures()),
    "caption_column": ("told", {"folder_path": "set/list.jsonl"}, Pictures()),
    "min_resolution": (50, {}, Pictures()),
    "max_aspect": (1.2, {}, Pictures()),
    "num_repeats": (2, {}, Pictures()),
    "weight": (2.5, {}, Pictures()),
    "loss_multiplier": (0.5, {}, Pictures()),
    "resolution": ([32, 64], {}, Pictures()),
    "scale": (0.5, {}, Pictures()),
    "buckets": (False, {}, Pictures()),
    "square_crop": (True, {}, Pictures()),
    "random_crop": (True, {}, Pictures()),
    "random_scale": (True, {}, Pictures()),
    "flip_x": (True, {}, Pictures()),
    "flip_y": (True, {}, Pictures()),
    "background": ([9, 9, 9], {}, Pictures()),
    "augments": (["ColorJitter"], {}, Pictures()),
    "augmentations": ([{"method": "HorizontalFlip"}], {}, Pictures()),
    "shuffle_augmentations": (True, {"augments": ["InvertImg", "Solarize"], "num_repeats": 3}, Pictures()),
    "replay_transforms": (False, {**EDITS, "augments": ["HorizontalFlip"]}, CHANNELS),
    "num_variants": (3, {}, Pictures()),
    "caption_ext": ("tags", {}, Pictures()),
    "caption_type": ("tags", {}, Pictures()),
    "default_caption": ("a thing", {}, Pictures()),
    "captions": ("prepend", {"default_caption": "a thing"}, Pictures()),
    "trigger_word": ("kit", {}, Pictures()),
    "random_triggers": (["one", "two"], {}, Pictures()),
    "random_triggers_max": (2, {"random_triggers": ["one", "two"]}, Pictures()),
    "caption_dropout_rate": (0.5, {}, Pictures()),
    "token_dropout_rate": (0.5, {}, Pictures()),
    "shuffle_tokens": (True, {}, Pictures()),
    "keep_tokens": (2, {"shuffle_tokens": True}, Pictures()),
    "use_short_captions": (True, {"folder_path": "set/list.jsonl"}, Pictures()),
    "replacements": (["cat|dog"], {}, Pictures()),
    "control_path": ("other", {}, TOKENS),
    "control_path_1": ("other", {}, TOKENS),
    "control_path_2": ("mask", {"control_path_1": "other"}, TOKENS),
    "control_path_3": ("mask", {"control_path_1": "other"}, TOKENS),
    "inpaint_path": ("clear", {}, CHANNELS),
    "control_from_same_folder": (True, {}, TOKENS),
    "num_controls_from_same_folder": (2, {"control_from_same_folder": True}, TOKENS),
    "control_transparent_color": ([200, 0, 0], {"control_path": "clear"}, TOKENS),
    "full_size_control_images": (False, EDITS, TOKENS),
    "num_frames": (9, CLIPS, VIDEO),
    "shrink_video_to_frames": (False, {**CLIPS, "fps": 12}, VIDEO),
    "fps": (12.0, {**CLIPS, "shrink_video_to_frames": False}, VIDEO),
    "auto_frame_count": (True, CLIPS, VIDEO),
    "trim_auto_frame_count_tail": (False, {**CLIPS, "auto_frame_count": True, "fps": 12}, VIDEO),
    "do_i2v": (True, CLIPS, VIDEO),
    "is_reg": (True, {}, Pictures()),
    "prior_reg": (True, {}, Pictures()),
    "network_weight": (0.5, {}, Pictures()),
    "diff_output_preservation_class": ("dog", {}, Pictures()),
    "mask_path": ("mask", {}, Pictures()),
    "alpha_mask": (True, {"folder_path": "clear"}, Pictures()),
    "invert_mask": (True, {"mask_path": "mask"}, Pictures()),
    "mask_min_value": (0.2, {"mask_path": "mask"}, Pictures()),
    "unconditional_path": ("other", {}, Pictures()),
    "guidance_type": ("polarity", {"unconditional_path": "other"}, Pictures()),
    "clip_image_path": ("other", {}, Pictures()),
    "clip_image_from_same_folder": (True, {}, Pictures()),
    "clip_image_augmentations": ([{"method": "HorizontalFlip"}], {"clip_image_path": "other"}, Pictures()),
    "clip_image_shuffle_augmentations": (
        True,
        {"clip_image_path": "other", "clip_image_augmentations": [{"method": "InvertImg"}, {"method": "Solarize"}]},
        Pictures(),
    ),
}
# what the trainer reads from the section, once the samples are known
FOR_THE_TRAINER = {"cache_latents", "cache_latents_to_disk", "cache_text_embeddings", "num_workers", "prefetch_factor"}
NOT_AT_ALL: dict[str, Any] = {
    "type": "video",
    "bucket_tolerance": 8,
    "standardize_images": True,
    "cache_tensors_to_disk": True,
    "cache_clip_vision_to_disk": True,
    "cache_latents_num_workers": 4,
    "load_image_when_caching_latents": True,
    "fast_image_size": False,
    "extra_values": [1.0],
    "controls": ["depth"],
    "do_audio": True,
    "audio_preserve_pitch": True,
    "audio_normalize": True,
    "diff_output_preservation": True,
    "poi": "face",
    "debug": True,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Film) -> Path:
    """Pictures with captions, and under the same names masks, other pictures and ones with holes; videos."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, size in (("a", (48, 32)), ("b", (32, 32)), ("c", (96, 96))):
        for sub, mode in (("set", "RGBA"), ("other", "RGB"), ("mask", "L"), ("clear", "RGBA")):
            Path(sub).mkdir(exist_ok=True)
            values = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
            Image.fromarray(values).convert(mode).save(f"{sub}/{name}.png")
        Path(f"set/{name}.txt").write_text(
            "a cat, red, blue, [trigger], large" if name != "c" else "", encoding="utf-8"
        )
        Path(f"set/{name}.tags").write_text("some tags", encoding="utf-8")
    rows = [f'{{"path": "a.png", "image": "{name}.png", "caption": "x", "told": "y", "caption_short": "z"}}'
            for name in "bc"]  # fmt: skip
    Path("set/list.jsonl").write_text("\n".join(rows), encoding="utf-8")
    Path("clips/still").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save("clips/still/d.png")
    film(Path("clips/v.mp4"), 43)
    return tmp_path


def effects(keys: dict[str, Any], taken: Pictures) -> list[Any]:
    """Everything that a trainer gets to see of a data set."""
    section = DatasetSection.model_validate({"folder_path": "set", "resolution": 32, **keys})
    assert not list(section.contradictions())
    items = read_datasets([section], 16, 4, None, taken=taken)
    seen: list[Any] = [len(items), items.batch_sizes().tolist(), items.sizes().tolist()]
    for item in items:
        rule = item.treatment
        seen += [item.id, rule.weight, rule.is_reg, rule.strict, rule.guidance_type, rule.num_variants, rule.mask]
        seen += [rule.keeps_base, rule.strength, rule.kind]
        for epoch in range(4):
            seen.append(item.text(1, epoch))
            pictures: list[Any] = [item_pixels(item, 1, epoch), item_mask(item, 1, epoch), item_pair(item, 1, epoch)]
            pictures += [*item_references(item, 1, epoch), item_clip_image(item, 1, epoch)]
            seen += [None if picture is None else np.asarray(picture).tobytes() for picture in pictures]
    return seen


@pytest.mark.parametrize("key", WORKING)
def test_a_key_that_works_changes_what_is_trained(folder: Path, key: str) -> None:
    value, beside, taken = WORKING[key]
    assert effects({**beside, key: value}, taken) != effects(beside, taken)


@pytest.mark.parametrize("key", NOT_AT_ALL)
def test_a_key_that_has_no_effect_is_named(folder: Path, key: str) -> None:
    field = DatasetSection.model_fields[key]
    value = NOT_AT_ALL[key]
    if value == field.default:
        pytest.skip("the default is what is always done")
    beside = {"do_audio": True} if key.startswith("audio_") else {}
    process = {
        "type": "sd_trainer",
        "training_folder": "output",
        "datasets": [{"folder_path": "set", **beside, key: value}],
        "model": {"name_or_path": "owner/model", "arch": "flux"},
    }
    data = {"job": "extension", "config": {"name": "test", "process": [process]}}
    try:
        said = [str(notice) for notice in validate(load(data)).notices]
    except ConfigError as error:
        said = str(error).splitlines()
    (line,) = [line for line in said if f"datasets.0.{key}: " in line]
    # why, or what to do
    assert len(line.partition(f"{key}: ")[2]) > 20


def test_the_tables_hold_every_key() -> None:
    assert {*WORKING, *NOT_AT_ALL, *FOR_THE_TRAINER} == set(DatasetSection.model_fields)
    assert not set(WORKING) & set(NOT_AT_ALL)
    for key in (*WORKING, *FOR_THE_TRAINER):
        assert state_of(DatasetSection.model_fields[key]) == "works", key
