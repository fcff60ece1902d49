"""Reference pictures of sample prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.models.family import Facts
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.references import check_references, listed_references, open_references

FACTS = Facts(channels=2, stride=8, multiple=16, base_model="x", references="tokens")
PROMPT = SamplePrompt("a cat", width=32, height=16, index=4)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A picture of 40 x 40 whose halves differ, and one of 20 x 10 whose left half is transparent."""
    halves = Image.new("RGB", (40, 40), "red")
    halves.paste("blue", (0, 20, 40, 40))
    halves.save(tmp_path / "halves.png")
    holed = Image.new("RGBA", (20, 10), (0, 255, 0, 255))
    holed.paste((0, 255, 0, 0), (0, 0, 10, 10))
    holed.save(tmp_path / "holed.png")
    return str(tmp_path / "halves.png"), str(tmp_path / "holed.png")


def test_a_model_that_reads_tokens_gets_them_at_their_own_size(files: tuple[str, str]):
    one, other = open_references(replace(PROMPT, images=files), FACTS)
    assert (one.size, other.size, one.mode, other.mode) == ((40, 40), (20, 10), "RGB", "RGB")
    assert other.getpixel((2, 5)) == (0, 0, 0) and other.getpixel((15, 5)) == (0, 255, 0)


@pytest.mark.parametrize("kind", ["channels", "first_frame"])
def test_others_get_them_cropped_like_the_sample(files: tuple[str, str], kind: str):
    one, other = open_references(replace(PROMPT, images=files), replace(FACTS, references=kind))
    assert one.size == other.size == (32, 16)
    pixels = np.asarray(one)
    # 40 x 40 covers 32 x 16 at 32 x 32; the middle is seen
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[-1, -1].tolist() == [0, 0, 255]
    assert other.mode == "RGBA" and other.getpixel((2, 8))[3] == 0 and other.getpixel((30, 8))[3] == 255  # type: ignore[index]


def test_text_encoders_get_the_files(files: tuple[str, str]):
    listed = listed_references(replace(PROMPT, images=files))
    assert [(record.width, record.height) for record in listed.pictures] == [(40, 40), (20, 10)]
    assert listed and not listed_references(PROMPT)


def test_pictures_that_have_no_effect_are_told(files: tuple[str, str]):
    told: list[str] = []
    prompts = check_references([replace(PROMPT, images=files)], replace(FACTS, references="none"), told.append)
    assert prompts == [PROMPT] and told == ["sample prompt 5: ctrl_img has no effect, this model takes no pictures"]


def test_what_is_missing_is_an_error(files: tuple[str, str], tmp_path: Path):
    with pytest.raises(ValueError, match="sample prompt 5: this model makes pictures from a picture; add ctrl_img"):
        check_references([PROMPT], replace(FACTS, needs_references=True), print)
    with pytest.raises(ValueError, match=r"sample prompt 5: ctrl_img .*no.png: no such file"):
        check_references([replace(PROMPT, images=(files[0], str(tmp_path / "no.png")))], FACTS, print)
    assert check_references([PROMPT], FACTS, print) == [PROMPT]
