"""Masks: found by name or taken from the alpha channel, cropped as their picture is, and named where they lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, Pictures, read_datasets
from toolkit.data.pictures.masks import MaskRule, to_mask
from toolkit.data.pictures.pixels import item_mask, item_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`set`: a picture 96 x 32 and one in a sub-folder; `mask`: white right halves."""
    for name in ("a.png", "sub/b.png"):
        pixels = np.zeros((32, 96, 3), np.uint8)
        pixels[..., 0] = np.linspace(0, 255, 96)[None]
        mask = np.zeros((32, 96), np.uint8)
        mask[:, 48:] = 255
        for sub, values in (("set", pixels), ("mask", mask)):
            path = tmp_path / sub / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return tmp_path


def read(folder: Path, **keys: Any) -> Items:
    section = DatasetSection.model_validate({"folder_path": str(folder / "set"), "resolution": 32, **keys})
    return read_datasets([section], 16, 4, None, taken=keys.pop("taken", Pictures()))


def test_masks_are_matched_by_name_and_mirrored(folder: Path) -> None:
    items = read(folder, mask_path=str(folder / "mask"), flip_x=True)
    for item in items:
        mask, width = item_mask(item), item.size[0]
        assert mask is not None and mask.shape == item.size[::-1]
        left, right = mask[:, : width // 2 - 4], mask[:, width // 2 + 4 :]
        assert (left.max(), right.min()) == (0, 255) if not item.flip_x else (left.min(), right.max()) == (255, 0)
    assert [item.mask.name for item in items if item.mask] == ["a.png"] * 2 + ["sub/b.png"] * 2


@pytest.mark.parametrize(
    "keys", [{"random_crop": True, "square_crop": True}, {"random_scale": True}, {"buckets": False}]
)
def test_masks_are_cropped_as_the_picture_is(folder: Path, keys: dict[str, Any]) -> None:
    for epoch in range(4):
        for item in read(folder, mask_path=str(folder / "mask"), **keys):
            mask, red = item_mask(item, 1, epoch), item_pixels(item, 1, epoch)[..., 0].astype(int)
            assert mask is not None
            assert (mask[red > 140] > 200).all() and (mask[red < 115] < 55).all()


def test_without_a_mask_there_is_none(folder: Path) -> None:
    item = read(folder)[0]
    assert item_mask(item) is None and item.treatment.mask is None


def test_an_unmatched_mask_is_an_error_that_names_the_picture(folder: Path) -> None:
    (folder / "mask/sub/b.png").unlink()
    with pytest.raises(ValueError, match=r"mask_path: .*mask has no picture of the same name for 1 of 2: sub/b\.png"):
        read(folder, mask_path=str(folder / "mask"))
    (folder / "mask/sub/b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"mask_path: .*b\.png: not an image"):
        read(folder, mask_path=str(folder / "mask"))


def test_masks_inside_the_data_set_are_no_samples(folder: Path) -> None:
    (folder / "mask").rename(folder / "set/mask")
    assert [item.record.name for item in read(folder, mask_path=str(folder / "set/mask"))] == ["a.png", "sub/b.png"]


def test_a_mask_of_another_shape_is_told(folder: Path) -> None:
    Image.new("L", (48, 16), 255).save(folder / "mask/a.png")
    assert not any("another shape" in line for line in read(folder, mask_path=str(folder / "mask")).problems)
    Image.new("L", (32, 96), 255).save(folder / "mask/a.png")
    (line,) = [line for line in read(folder, mask_path=str(folder / "mask")).problems if "another shape" in line]
    assert "1 of 2 have another shape than their picture" in line and "(first: a.png, 32 x 96)" in line


def test_the_alpha_channel_is_the_mask_and_colors_under_it_are_seen(folder: Path) -> None:
    values = np.zeros((32, 96, 4), np.uint8)
    values[..., 0], values[:, 48:, 3] = 200, 255
    for name in ("a.png", "sub/b.png"):
        Image.fromarray(values).save(folder / "set" / name)
    item = read(folder, alpha_mask=True)[0]
    mask, width = item_mask(item), item.size[0]
    assert mask is not None and mask[:, : width // 2 - 4].max() == 0 and mask[:, width // 2 + 4 :].min() == 255
    assert (item_pixels(item) == (200, 0, 0)).all()
    # without the key transparent parts show the background
    assert (item_pixels(read(folder)[0])[:, : width // 2 - 4] == 255).all()


def test_pictures_without_alpha_channel_cannot_be_their_own_mask(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"alpha_mask: 2 of 2 pictures have no alpha channel: a\.png, sub/b\.png"):
        read(folder, alpha_mask=True)


def test_inverted_masks() -> None:
    gray = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert np.asarray(to_mask(gray, MaskRule())).tolist() == [[0, 100, 255]]
    assert np.asarray(to_mask(gray, MaskRule(invert=True))).tolist() == [[255, 155, 0]]
    clear = Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 60]]], np.uint8))
    assert np.asarray(to_mask(clear, MaskRule(alpha=True))).tolist() == [[0, 60]]
    assert np.asarray(to_mask(clear, MaskRule(alpha=True, invert=True))).tolist() == [[255, 195]]


def test_transparent_parts_of_a_mask_file_do_not_count(folder: Path) -> None:
    Image.new("RGBA", (96, 32), (255, 255, 255, 0)).save(folder / "mask/a.png")
    mask = item_mask(read(folder, mask_path=str(folder / "mask"))[0])
    assert mask is not None and mask.max() == 0


def test_one_mask_holds_for_all_frames(folder: Path, film: Any) -> None:
    film(folder / "set/v.mp4", 9)
    Image.new("L", (96, 64), 77).save(folder / "mask/v.png")
    section = DatasetSection.model_validate(
        {"folder_path": str(folder / "set"), "resolution": 32, "num_frames": 5, "mask_path": str(folder / "mask")}
    )
    items = read_datasets([section], 16, 4, None, taken=Pictures(frame_stride=4))
    mask = item_mask(items[2])
    assert mask is not None and (mask == 77).all() and item_pixels(items[2]).shape == (5, *mask.shape, 3)
