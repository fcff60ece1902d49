"""Augmentations: what is drawn for whom, what follows the picture, and how a mistake is told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import Items, Pictures, read_datasets
from toolkit.data.pictures.augment import Augment, read_steps, wrong_steps
from toolkit.data.pictures.pixels import item_clip_image, item_mask, item_pair, item_pixels, item_references
from toolkit.data.treatment import Treatment

TURN = {"method": "Rotate", "params": {"limit": [20, 40], "p": 1.0, "border_mode": "cv2.BORDER_CONSTANT"}}
COLORS = {
    "method": "RGBShift",
    "params": {"r_shift_limit": [50, 90], "g_shift_limit": [0, 0], "b_shift_limit": [0, 0], "p": 1.0},
}


def ramp(size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]: red grows to the right, green downward, blue is 90."""
    width, height = size
    pixels = np.full((height, width, 3), 90, np.uint8)
    pixels[..., 0] = np.linspace(30, 150, width)[None]
    pixels[..., 1] = np.linspace(30, 150, height)[:, None]
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`set` with two pictures; `other` with the same pictures; `mask` with the green channel of each."""
    for name, size in (("a.png", (96, 64)), ("b.png", (64, 64))):
        for sub, pixels in (("set", ramp(size)), ("other", ramp(size)), ("mask", ramp(size)[..., 1])):
            (tmp_path / sub).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / sub / name)
    return tmp_path


def read(folder: Path, taken: Pictures | None = None, **keys: Any) -> Items:
    section = DatasetSection.model_validate({"folder_path": str(folder / "set"), "resolution": 64, **keys})
    return read_datasets([section], 16, 4, None, taken=taken or Pictures())


def test_every_sample_and_epoch_draws_anew_and_always_the_same(folder: Path) -> None:
    items = read(folder, augmentations=[TURN], num_repeats=2)
    drawn = [item_pixels(item, 1, epoch).tobytes() for item in items for epoch in range(3)]
    assert len(set(drawn)) == 12
    again = read(folder, augmentations=[TURN], num_repeats=2)
    assert [item_pixels(item, 1, epoch).tobytes() for item in again for epoch in range(3)] == drawn
    assert item_pixels(items[0], 2, 0).tobytes() not in drawn
    assert items[0].treatment.is_random and item_pixels(items[0], 1, 0).shape == (48, 80, 3)


def test_every_step_draws_for_itself() -> None:
    twice = Augment(read_steps(["HorizontalFlip", "HorizontalFlip"], ()))
    drawn = [twice.change(ramp((32, 32)), 0, epoch, "a")[0, 0, 0] for epoch in range(16)]
    assert set(drawn) == {30, 150}


def test_another_process_draws_the_same_without_torch(folder: Path) -> None:
    items = read(folder, augmentations=[TURN, COLORS])
    code = (
        "import pickle, sys; item = pickle.load(sys.stdin.buffer)\n"
        "from toolkit.data.pictures.pixels import item_pixels\n"
        "sys.stdout.buffer.write(item_pixels(item, 1, 5).tobytes())\n"
        "assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(items[0]),
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == item_pixels(items[0], 1, 5).tobytes()


def test_masks_move_as_the_picture_does(folder: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"flip_x": True, "flip_y": True}, {"random_scale": True}]
    for keys in (*variants, {"replay_transforms": False}):
        items = read(folder, augmentations=[TURN, COLORS], mask_path=str(folder / "mask"), **keys)
        for item in items:
            mask, picture = item_mask(item, 3, 1), item_pixels(item, 3, 1)
            assert mask is not None and mask.shape == picture.shape[:2] and mask.dtype == np.uint8
            assert np.abs(mask.astype(int) - picture[..., 1]).max() <= 2
        # what came in from outside does not count
        assert item_mask(items[0], 3, 1).min() == 0  # type: ignore[union-attr]


def test_a_shuffled_order_is_shared_by_picture_and_mask(folder: Path) -> None:
    shift = {"method": "Affine", "params": {"translate_px": {"x": 20, "y": 0}, "p": 1.0}}
    keys: dict[str, Any] = {
        "augmentations": [TURN, shift],
        "shuffle_augmentations": True,
        "mask_path": str(folder / "mask"),
    }
    items = read(folder, **keys)
    pictures = [item_pixels(items[0], 3, epoch) for epoch in range(8)]
    in_order = [item_pixels(read(folder, **{**keys, "shuffle_augmentations": False})[0], 3, e) for e in range(8)]
    same = [np.array_equal(one, other) for one, other in zip(pictures, in_order, strict=True)]
    assert any(same) and not all(same)
    for epoch, picture in enumerate(pictures):
        mask = item_mask(items[0], 3, epoch)
        assert mask is not None and np.abs(mask.astype(int) - picture[..., 1]).max() <= 2


def test_control_images_move_but_keep_their_colors(folder: Path) -> None:
    for taken in (Pictures(references="channels"), Pictures(references="tokens")):
        items = read(folder, taken, augmentations=[TURN, COLORS], control_path=str(folder / "other"))
        (image,), picture = item_references(items[0], 3, 1), item_pixels(items[0], 3, 1)
        assert np.abs(np.asarray(image)[..., 1:].astype(int) - picture[..., 1:]).max() <= 2
        assert np.asarray(image)[24, 40, 0] + 45 < picture[24, 40, 0]
        is_said = any("control images are cropped and moved" in line for line in items.problems)
        assert is_said == (taken.references == "tokens")


@pytest.mark.parametrize("keys", [{"replay_transforms": False, "augmentations": [TURN]}, {"augmentations": [COLORS]}])
def test_control_images_stay_whole_where_nothing_moves_them(folder: Path, keys: dict[str, Any]) -> None:
    items = read(folder, Pictures(references="tokens"), control_path=str(folder / "other"), **keys)
    (image,) = item_references(items[0], 3, 1)
    assert np.array_equal(np.asarray(image), ramp((96, 64)))
    assert not any("control images" in line for line in items.problems)


def test_control_images_that_are_channels_can_stay_where_they_are(folder: Path) -> None:
    keys: dict[str, Any] = {"control_path": str(folder / "other"), "replay_transforms": False}
    items = read(folder, Pictures(references="channels"), augmentations=[TURN], **keys)
    (image,) = item_references(items[0], 3, 1)
    assert np.array_equal(np.asarray(image), item_pixels(read(folder)[0]))


def test_pair_pictures_change_in_every_way(folder: Path) -> None:
    items = read(folder, augmentations=[TURN, COLORS], unconditional_path=str(folder / "other"))
    pair = item_pair(items[0], 3, 1)
    assert pair is not None and np.array_equal(pair, item_pixels(items[0], 3, 1))
    still = read(folder, augmentations=[TURN], unconditional_path=str(folder / "other"), replay_transforms=False)
    plain, pair = item_pixels(read(folder)[0]), item_pair(still[0], 3, 1)
    assert pair is not None and np.array_equal(pair, plain) and not np.array_equal(item_pixels(still[0], 3, 1), plain)


def test_pictures_for_a_vision_adapter_have_augmentations_of_their_own(folder: Path) -> None:
    keys: dict[str, Any] = {
        "clip_image_path": str(folder / "other"),
        "clip_image_augmentations": [{"method": "InvertImg"}],
    }
    items = read(folder, **keys)
    seen = [np.asarray(item_clip_image(items[0], 1, epoch)) for epoch in range(12)]
    assert {picture.tobytes() for picture in seen} == {ramp((96, 64)).tobytes(), (255 - ramp((96, 64))).tobytes()}
    assert not items[0].treatment.is_random and np.array_equal(item_pixels(items[0], 1, 3), item_pixels(items[0]))


def test_frames_of_a_video_change_alike(folder: Path, film: Any) -> None:
    film(folder / "set" / "v.mp4", 9)
    items = read(folder, Pictures(frame_stride=4), num_frames=5, augmentations=[COLORS])
    frames = item_pixels(items[2], 1, 2)
    plain = item_pixels(read(folder, Pictures(frame_stride=4), num_frames=5)[2])
    shift = (frames.astype(int) - plain)[..., 0]
    assert frames.shape == plain.shape and len(np.unique(shift[plain[..., 0] < 160])) == 1 and shift.max() >= 50


@pytest.mark.parametrize(
    "step", [{"method": "Transpose"}, {"method": "RandomCrop", "params": {"height": 32, "width": 32}}]
)
def test_the_size_stays_whatever_a_step_does(folder: Path, step: dict[str, Any]) -> None:
    step = {**step, "params": {**step.get("params", {}), "p": 1.0}}
    for item in read(folder, augmentations=[step], mask_path=str(folder / "mask")):
        picture, mask = item_pixels(item), item_mask(item)
        assert picture.shape[1::-1] == item.size and mask is not None and mask.shape[::-1] == item.size
        assert np.abs(mask.astype(int) - picture[..., 1]).max() <= 3


def test_names_are_those_of_ai_toolkit_or_of_albumentations() -> None:
    steps = Augment(read_steps(["ColorJitter", "RandomEqualize", "HorizontalFlip"], [("Blur", {"p": 0.5})]))
    assert steps.view()["steps"] == [
        ["ColorJitter", {"brightness": 0.2, "contrast": 0.2, "hue": 0.03, "p": 1.0, "saturation": 0.2}],
        ["Equalize", {"p": 0.2}],
        ["HorizontalFlip", {}],
        ["Blur", {"p": 0.5}],
    ]
    steps.check((32, 32))
    assert steps.moves and not Augment(read_steps(["ColorJitter"], [])).moves


def test_a_mistake_is_named_before_training(folder: Path) -> None:
    wrong = [
        ({"method": "Rotat"}, "albumentations has no transform Rotat; did you mean Rotate?"),
        ({"method": "Compose"}, "albumentations has no transform Compose"),
        ({"method": "Rotate", "params": {"limt": 3}}, "Rotate: no parameter limt; did you mean limit? (known: limit, "),
        ({"method": "Rotate", "params": {"limit": "far"}}, "Rotate: limit.tuple[float, float]: Input should be"),
        ({"method": "Rotate", "params": {"border_mode": "cv2.BORDER_NICE"}}, "OpenCV has no constant BORDER_NICE"),
    ]
    steps = [step for step, _ in wrong]
    section = DatasetSection.model_validate({"folder_path": "set", "augments": ["Blurr"], "augmentations": steps})
    said = list(wrong_steps(section))
    assert said[0] == (("augments", 0), "albumentations has no transform Blurr; did you mean Blur?")
    assert [path for path, _ in said[1:]] == [("augmentations", number) for number in range(len(wrong))]
    for (_, text), (step, expected) in zip(said[1:], wrong, strict=True):
        assert expected in text
        with pytest.raises(ValueError, match="augmentations: "):
            read(folder, augmentations=[step])
    for step, expected in (
        ({"method": "Normalize"}, "Normalize: does not give a picture"),
        ({"method": "RandomCrop", "params": {"height": 99, "width": 99}}, r"tried at 64 x 48"),
        ({"method": "FDA"}, "FDA requires"),
    ):
        with pytest.raises(ValueError, match=expected):
            read(folder, augmentations=[step])


def test_without_the_library_the_command_that_installs_it_is_told() -> None:
    code = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'albumentations' else find(name, *a)\n"
        "from toolkit.config.sections.dataset import DatasetSection\n"
        "from toolkit.data.pictures.augment import Step, build, wrong_steps\n"
        "section = DatasetSection.model_validate({'folder_path': 'x', 'augments': ['Blur']})\n"
        "print(*wrong_steps(section))\n"
        "try:\n    build(Step('Blur'))\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.count("pip install 'aitk[augment]'") == 2 and "('augments',)" in done.stdout


def test_a_view_tells_everything_that_changes_the_pixels(folder: Path) -> None:
    def view(**keys: Any) -> dict[str, object]:
        return read(folder, **keys)[0].treatment.view()

    turned: dict[str, Any] = {"augmentations": [TURN]}
    views = [
        view(),
        view(background=[0, 0, 0]),
        view(random_crop=True),
        view(random_scale=True),
        view(mask_path=str(folder / "mask")),
        view(mask_path=str(folder / "mask"), mask_min_value=0.1),
        view(mask_path=str(folder / "mask"), invert_mask=True),
        view(**turned),
        view(**turned, shuffle_augmentations=True),
        view(**turned, replay_transforms=False),
        view(augmentations=[COLORS]),
    ]
    assert len({repr(entry) for entry in views}) == len(views)
    assert view() == view(flip_x=True, num_repeats=2)
    assert Treatment(random_scale=True, scale=0.5).view() != Treatment(random_scale=True).view()
    assert Treatment(scale=0.5).view() == Treatment().view()


def test_another_version_of_the_library_is_another_view(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    treatment = read(folder, augmentations=[TURN])[0].treatment
    before = treatment.view()
    monkeypatch.setattr("albumentations.__version__", "0.1")
    assert treatment.view() != before
