"""Reference pictures: found by name, opened as the model takes them, and named where they are missing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, Pictures, read_datasets
from toolkit.data.pictures.pixels import item_clip_image, item_pair, item_pixels, item_references, whole_pictures
from toolkit.data.pictures.references import Neighbors
from toolkit.data.records import ListedRecords, Record

TOKENS = Pictures(references="tokens")
CHANNELS = Pictures(references="channels")


def ramp(size: tuple[int, int], level: int = 0) -> Image.Image:
    """Red grows to the right, green downward; blue is `level`."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)[None]
    pixels[..., 1] = np.linspace(0, 255, height)[:, None]
    pixels[..., 2] = level
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """`set` with a wide, a square and a nested picture; `edit` and `pose` with pictures of the same names."""
    for name, size in (("a.png", (96, 32)), ("b.png", (32, 32)), ("sub/c.png", (32, 32))):
        save(tmp_path / "set" / name, ramp(size))
        save(tmp_path / "edit" / name, ramp((size[0] * 2, size[1] * 2), 100))
        save((tmp_path / "pose" / Path(name).name).with_suffix(".webp"), ramp((20, 10), 200))
    return tmp_path


def read(folders: Path, taken: Pictures = TOKENS, **keys: Any) -> Items:
    keys = {"folder_path": str(folders / "set"), "resolution": 32, **keys}
    return read_datasets([DatasetSection.model_validate(keys)], 16, 4, None, taken=taken)


def test_pictures_of_the_same_name_belong_together(folders: Path) -> None:
    paths = [str(folders / "edit"), str(folders / "pose")]
    for keys in ({"control_path": paths}, {"control_path_1": paths[0], "control_path_2": paths[1]}):
        items = read(folders, **keys)
        names = [[str(record.path.relative_to(folders)) for record in item.references.pictures] for item in items]
        assert names == [
            ["edit/a.png", "pose/a.webp"],
            ["edit/b.png", "pose/b.webp"],
            ["edit/sub/c.png", "pose/c.webp"],
        ]
    (only,) = {len(item.references.pictures) for item in read(folders, control_path=paths[0], control_path_1="")}
    assert only == 1


def test_a_missing_reference_is_an_error_that_names_the_picture(folders: Path) -> None:
    (folders / "pose" / "b.webp").unlink()
    with pytest.raises(ValueError, match=r"control_path: .*pose has no picture of the same name for 1 of 3: b\.png"):
        read(folders, control_path=[str(folders / "edit"), str(folders / "pose")])
    with pytest.raises(ValueError, match=r"control_path: .*nowhere is not there"):
        read(folders, control_path=str(folders / "nowhere"))
    save(folders / "edit" / "a.jpg", ramp((8, 8)))
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png have the same name"):
        read(folders, control_path=str(folders / "edit"))


def test_a_broken_reference_is_an_error_that_names_it(folders: Path) -> None:
    (folders / "edit" / "a.png").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"edit/a\.png: not an image"):
        read(folders, control_path=str(folders / "edit"))


def test_references_inside_the_data_set_are_no_samples(folders: Path) -> None:
    (folders / "edit").rename(folders / "set" / "edit")
    items = read(folders, control_path=str(folders / "set" / "edit"))
    assert [item.record.name for item in items] == ["a.png", "b.png", "sub/c.png"]


def test_models_without_references_refuse_them_and_models_with_need_them(folders: Path) -> None:
    path = str(folders / "edit")
    with pytest.raises(ValueError, match="control_path is set, but the model takes no reference pictures"):
        read(folders, Pictures(), control_path=path)
    with pytest.raises(ValueError, match=r"only the first frame of the video itself \(do_i2v\)"):
        read(folders, Pictures(frame_stride=4, references="first_frame"), control_path=path)
    with pytest.raises(ValueError, match="name their folder as control_path"):
        read(folders, Pictures(references="tokens", needs_references=True))
    with pytest.raises(ValueError, match="inpaint_path is set, but the model paints no holes"):
        read(folders, TOKENS, inpaint_path=path)
    assert not any(item.references for item in read(folders, TOKENS))


def test_references_keep_their_own_size_and_are_mirrored_with_the_picture(folders: Path) -> None:
    plain, mirrored = read(folders, control_path=str(folders / "edit"), flip_x=True)[:2]
    (image,), (turned,) = item_references(plain), item_references(mirrored)
    assert image.size == (192, 64) and np.array_equal(np.asarray(turned), np.asarray(image)[:, ::-1])
    (upside_down,) = whole_pictures(plain.references, flip_y=True)
    assert np.array_equal(np.asarray(upside_down), np.asarray(image)[::-1])


@pytest.mark.parametrize("keys", [{"square_crop": True}, {"random_crop": True}, {"square_crop": True, "flip_y": True}])
def test_channels_are_cropped_as_the_picture_is(folders: Path, keys: dict[str, Any]) -> None:
    full_size = {"full_size_control_images": False}
    for taken, more in ((CHANNELS, {}), (TOKENS, full_size)):
        for item in read(folders, taken, control_path=str(folders / "edit"), **keys, **more):
            (image,) = item_references(item, epoch=3)
            pixels = item_pixels(item, epoch=3)
            assert image.size == item.size
            assert np.abs(np.asarray(image)[..., :2].astype(int) - pixels[..., :2]).max() <= 6


def test_transparent_parts_show_the_color_of_references(folders: Path) -> None:
    save(folders / "edit" / "a.png", Image.new("RGBA", (8, 8), (9, 9, 9, 0)))
    for color in ([0, 0, 0], [255, 0, 7]):
        keys = {} if color == [0, 0, 0] else {"control_transparent_color": color}
        items = read(folders, control_path=str(folders / "edit"), **keys)
        assert item_references(items[0])[0].getpixel((4, 4)) == tuple(color)


def test_pictures_to_paint_in_keep_their_transparency(folders: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        image = ramp((96, 32) if name == "a.png" else (32, 32)).convert("RGBA")
        image.paste((0, 0, 0, 0), (0, 0, 8, 32))
        save(folders / "holes" / name, image)
    keys = {"inpaint_path": str(folders / "holes"), "control_path": str(folders / "pose")}
    for item in read(folders, CHANNELS, **keys):
        holed, plain = item_references(item)
        assert (holed.mode, plain.mode) == ("RGBA", "RGB") and holed.size == plain.size == item.size
        assert holed.getpixel((1, 8))[3] < 8 and holed.getpixel((item.size[0] - 2, 8))[3] > 247
    with pytest.raises(ValueError, match=r"edit/a\.png.*no alpha channel"):
        read(folders, CHANNELS, inpaint_path=str(folders / "edit"))


def test_other_pictures_of_the_folder_are_references(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.png", "x/3.png", "y/4.png", "y/5.png"):
        save(tmp_path / "set" / name, ramp((32, 32)))
    keys = {"control_from_same_folder": True, "num_controls_from_same_folder": 2, "num_repeats": 3}
    items = read(tmp_path, **keys)
    for item in items:
        names = {record.name for record in item.references.pictures}
        assert item.record.name not in names and {name[0] for name in names} == {item.record.name[0]}
        assert len(names) == (2 if item.record.name[0] == "x" else 1)
    assert [item.references for item in items] == [item.references for item in read(tmp_path, **keys)]
    one = read(tmp_path, **{**keys, "num_controls_from_same_folder": 1, "num_repeats": 20})
    assert len({item.references.pictures for item in one if item.record.name == "x/1.png"}) == 2
    (tmp_path / "set/y/4.png").unlink()
    with pytest.raises(ValueError, match="needs a second picture in every sub-folder"):
        read(tmp_path, **keys)


def test_drawing_from_a_large_folder_takes_no_look_at_every_other(tmp_path: Path) -> None:
    names = sorted(f"{'ab'[number % 2]}/{number}.png" for number in range(40_000))
    records = ListedRecords([Record(tmp_path / name, name, 8, 8) for name in names])
    begin = time.perf_counter()
    neighbors = Neighbors(records)
    for row in range(len(names)):
        (one, other) = neighbors.draw(row, 2, f"0:{names[row]}")
        assert names[row] not in (one.name, other.name) and one.name[0] == other.name[0] == names[row][0]
    # a look at every other one would take minutes
    assert time.perf_counter() - begin < 15


def test_pairs_and_pictures_for_a_vision_adapter_are_matched_too(folders: Path) -> None:
    items = read(folders, unconditional_path=str(folders / "edit"), clip_image_path=str(folders / "pose"), flip_x=True)
    assert [item.pair.name for item in items[::2] if item.pair] == ["a.png", "b.png", "sub/c.png"]
    assert [item.clip_image.name for item in items[::2] if item.clip_image] == ["a.webp", "b.webp", "c.webp"]
    assert {item.treatment.guidance_type for item in items} == {"targeted"}
    for item in items:
        pair, clip_image = item_pair(item), item_clip_image(item)
        assert pair is not None and clip_image is not None and clip_image.size == (20, 10)
        # the same picture but for its blue
        assert np.abs(pair[..., :2].astype(int) - item_pixels(item)[..., :2]).max() <= 6 and pair[..., 2].min() > 90
    mirrored, plain = item_clip_image(items[1]), item_clip_image(items[0])
    assert np.array_equal(np.asarray(mirrored), np.asarray(plain)[:, ::-1])
    for key in ("unconditional_path", "clip_image_path"):
        (folders / "pose" / "a.webp").unlink(missing_ok=True)
        with pytest.raises(ValueError, match=rf"{key}: .*pose has no picture of the same name for 1 of 3: a\.png"):
            read(folders, **{key: str(folders / "pose")})


def test_pictures_for_a_vision_adapter_from_the_same_folder(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.png", "y/3.png"):
        save(tmp_path / "set" / name, ramp((32, 32)))
    items = read(tmp_path, clip_image_from_same_folder=True)
    assert [item.clip_image.name for item in items if item.clip_image] == ["x/2.png", "x/1.png", "y/3.png"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"control_path": "a", "control_path_1": "b"}, "cannot be combined with control_path_1 to 3"),
        ({"control_path_2": "a", "control_from_same_folder": True}, "cannot be combined with control_path"),
        ({"inpaint_path": ["a"], "control_from_same_folder": True}, "cannot be combined with inpaint_path"),
        ({"clip_image_path": "a", "clip_image_from_same_folder": True}, "cannot be combined with clip_image_path"),
    ],
)
def test_keys_that_contradict_each_other(keys: dict[str, Any], said: str) -> None:
    section = DatasetSection.model_validate({"folder_path": "set", **keys})
    ((_, text),) = section.contradictions()
    assert text.startswith(said)
