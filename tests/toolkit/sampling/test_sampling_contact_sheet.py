"""The contact sheet: the same prompt in one row, the same step in one column, nothing on top of anything."""

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageColor

from toolkit.sampling.contact_sheet import PAPER, choose_steps, contact_sheet, describe, write_contact_sheet
from toolkit.sampling.lettering import fit_lines, font, wrap
from toolkit.sampling.picture_files import save_picture

Box = tuple[int, int, int, int]


def color(step: int, index: int) -> tuple[int, int, int]:
    """Return a color of its own for each picture."""
    return (step % 256, 40 + 60 * index, 200)


def save(folder: Path, step: int, index: int, prompt: str, size: tuple[int, int] = (64, 64), **facts: Any) -> Path:
    """Save a picture of one flat color."""
    return save_picture(
        Image.new("RGB", size, color(step, index)), folder, step, index, 3, "png", {"prompt": prompt, **facts}
    )


def find(sheet: Image.Image, wanted: tuple[int, int, int]) -> Box:
    """Return where a color stands on the sheet."""
    difference = ImageChops.difference(sheet, Image.new("RGB", sheet.size, wanted)).convert("RGB")
    box = ImageChops.invert(difference.convert("L").point(lambda value: 255 if value else 0)).getbbox()
    assert box is not None
    return box


def has_ink(sheet: Image.Image, box: Box) -> bool:
    """Whether anything stands in a part of the sheet."""
    part = sheet.crop(box)
    return ImageChops.difference(part, Image.new("RGB", part.size, ImageColor.getrgb(PAPER))).getbbox() is not None


def test_prompts_are_rows_and_steps_are_columns(tmp_path: Path) -> None:
    prompts = ["a red circle on a blue background", "a cat " * 60, "x" * 300]
    for step, index in itertools.product((0, 100, 200), range(3)):
        save(tmp_path, step, index, prompts[index], seed=42, negative="blurry " * 20)
    sheet = contact_sheet(tmp_path, "my_lora")
    assert sheet is not None
    boxes = {(s, i): find(sheet, color(s, i)) for s, i in itertools.product((0, 100, 200), range(3))}
    for index in range(3):
        assert len({boxes[step, index][1] for step in (0, 100, 200)}) == 1
    for step in (0, 100, 200):
        assert len({boxes[step, index][0] for index in range(3)}) == 1
        assert [boxes[step, index][1] for index in range(3)] == sorted(boxes[step, index][1] for index in range(3))
    assert boxes[0, 0][0] < boxes[100, 0][0] < boxes[200, 0][0]
    # 64 pixels are shown as 192.
    assert {(box[2] - box[0], box[3] - box[1]) for box in boxes.values()} == {(192, 192)}
    # Text stands left of its row and above the first, never between the rows or at the pictures.
    left = boxes[0, 0][0]
    for index in range(3):
        assert has_ink(sheet, (0, boxes[0, index][1], left - 5, boxes[0, index][3]))
        assert not has_ink(sheet, (left - 5, 0, left, sheet.height))
        if index:
            assert not has_ink(sheet, (0, boxes[0, index - 1][3] + 2, sheet.width, boxes[0, index][1]))
    assert has_ink(sheet, (boxes[100, 0][0], boxes[0, 0][1] - 30, boxes[100, 0][2], boxes[0, 0][1]))
    assert not has_ink(sheet, (0, boxes[0, 2][3] + 2, sheet.width, sheet.height))


def test_sizes_of_pictures(tmp_path: Path) -> None:
    sizes = [(1024, 512), (512, 2048), (200, 150)]
    for index, size in enumerate(sizes):
        save(tmp_path, 7, index, f"prompt {index}", size)
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    boxes = [find(sheet, color(7, index)) for index in range(3)]
    assert [(box[2] - box[0], box[3] - box[1]) for box in boxes] == [(384, 192), (96, 384), (200, 150)]
    assert boxes[0][3] < boxes[1][1] and boxes[1][3] < boxes[2][1]


def test_small_pictures_are_enlarged_without_blur(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "#ff0000")
    picture.paste("#0000ff", (0, 0, 31, 64))
    save_picture(picture, tmp_path, 0, 0, 1, "png", {"prompt": "two halves"})
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    red, blue = find(sheet, (255, 0, 0)), find(sheet, (0, 0, 255))
    assert blue[2] == red[0] and (blue[2] - blue[0], red[2] - red[0]) == (31 * 3, 33 * 3)


def test_flat_pictures_leave_room_for_their_text(tmp_path: Path) -> None:
    for index in range(2):
        save(tmp_path, 0, index, "a long prompt " * 10, (256, 16), seed=1)
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    first, second = find(sheet, color(0, 0)), find(sheet, color(0, 1))
    assert not has_ink(sheet, (0, first[1] + 49, first[0], second[1]))


def test_what_a_row_differs_in_is_said() -> None:
    facts = {"seed": 7, "guidance": 1.0, "network_multiplier": 0.5, "negative": "fog"}
    assert describe(facts) == "seed 7, guidance 1.0, strength 0.5, not: fog"
    assert describe({**facts, "network_multiplier": 1.0, "negative": ""}, ("seed",)) == "seed 7"


def test_edited_prompt_gets_a_row_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, 0, 0, "a cat")
    save(tmp_path, 100, 0, "a dog")
    save(tmp_path, 100, 1, "a house")
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    tops = [find(sheet, color(*key))[1] for key in ((0, 0), (100, 0), (100, 1))]
    assert tops == sorted(set(tops))


def test_step_made_again_after_a_resume_shows_the_later_picture(tmp_path: Path) -> None:
    older = save(tmp_path, 100, 0, "a cat")
    older.rename(tmp_path / f"1000000000000{older.name[13:]}")
    save_picture(Image.new("RGB", (64, 64), "#010203"), tmp_path, 100, 0, 3, "png", {"prompt": "a cat"})
    sheet = contact_sheet(tmp_path)
    assert sheet is not None
    assert find(sheet, (1, 2, 3))[2] > 0
    assert not has_ink(sheet, (find(sheet, (1, 2, 3))[2], 0, sheet.width, sheet.height))


def test_written_atomically_and_read_past_a_damaged_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert write_contact_sheet(tmp_path) is None
    save(tmp_path, 0, 0, "a cat")
    (tmp_path / "1724085406830__000000100_0.jpg").write_bytes(b"no picture")
    half = save_picture(Image.effect_noise((64, 64), 50), tmp_path, 200, 0, 1, "jpg", {"prompt": "a cat"})
    half.write_bytes(half.read_bytes()[:-1000])
    huge = save_picture(Image.new("RGB", (8, 8)), tmp_path, 300, 0, 1, "png", {"prompt": "a cat"})
    data = huge.read_bytes()
    sizes = data[12:16] + struct.pack(">II", 20_000, 10_000) + data[24:29]
    huge.write_bytes(data[:12] + sizes + struct.pack(">I", zlib.crc32(sizes)) + data[33:])
    path = write_contact_sheet(tmp_path, "title")
    assert path == tmp_path / "contact_sheet.png"
    assert "000000100_0.jpg is left out" in caplog.text and f"{half.name} is left out" in caplog.text
    assert f"{huge.name} is left out" in caplog.text
    with Image.open(path) as sheet:
        sheet.load()
    assert len(list(tmp_path.iterdir())) == 5


def test_very_large_sheet_is_a_jpg(tmp_path: Path) -> None:
    (tmp_path / "contact_sheet.png").touch()
    for step, index in [(0, index) for index in range(32)] + [(step, 0) for step in range(1, 12)]:
        save_picture(Image.new("RGB", (64, 64)), tmp_path, step, index, 32, "jpg", {"prompt": str(index)})
    path = write_contact_sheet(tmp_path)
    assert path == tmp_path / "contact_sheet.jpg"
    assert not (tmp_path / "contact_sheet.png").exists()


def test_choice_of_steps() -> None:
    assert choose_steps([0, 250, 500]) == [0, 250, 500]
    chosen = choose_steps(list(range(0, 10_001, 250)))
    assert len(chosen) == 12 and chosen[0] == 0 and chosen[-1] == 10_000 and chosen == sorted(set(chosen))
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert max(gaps) - min(gaps) <= 250


def test_text_fits_its_box() -> None:
    for text in ("a red circle on a blue background " * 5, "x" * 200, "", "word " + "y" * 90 + " word"):
        lines = wrap(text, 16, 200)
        assert all(font(16).getlength(line) <= 200 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    cut = fit_lines("a red circle on a blue background " * 5, 16, 200, 2)
    assert len(cut) == 2 and cut[-1].endswith("...") and font(16).getlength(cut[-1]) <= 200
