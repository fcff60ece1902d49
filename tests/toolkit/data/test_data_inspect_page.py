"""The page and the terminal view of an inspection."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from toolkit.data.inspect import inspect_folder
from toolkit.data.inspect.page import make_page
from toolkit.data.inspect.terminal import percent, print_inspection, shown

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects addresses and text, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in {"src", "href", "action", "data", "srcset"}]
        assert not [key for key, _ in attrs if key.startswith("on")]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of one bucket, one that is cropped, and broken files with dangerous names."""
    made = tmp_path / "pictures & <i>more"
    made.mkdir()
    for number in range(3):
        Image.radial_gradient("L").convert("RGB").rotate(40 * number).resize((64, 64)).save(made / f"{number}.png")
    (made / "0.txt").write_text('<script>alert("1")</script> & [bold]cat[/bold]')
    Image.linear_gradient("L").resize((90, 40)).save(made / "wide.png")
    for name in ("<b>.png", "[red]x.png", "a'b\"c.png"):
        (made / name).write_bytes(b"no picture")
    return made


def test_the_page_needs_nothing_beside_itself(folder: Path) -> None:
    page = make_page(inspect_folder(folder, (64,)))
    found = Reader(page)
    assert found.addresses
    assert all(address.startswith(("data:image/", "#")) for address in found.addresses)
    assert not {"script", "link", "iframe", "object", "base", "video", "source"} & set(found.tags)
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "//" not in style
    assert "prefers-color-scheme: dark" in style
    assert "http" not in re.sub(r"base64,[^\"]+", "", page)


def test_what_users_wrote_is_text_and_nothing_else(folder: Path) -> None:
    facts = inspect_folder(folder, (64,))
    page = make_page(facts)
    words = "".join(Reader(page).words)
    for broken in facts.broken:
        assert broken.name in words
    assert len(facts.broken) == 3
    assert '<script>alert("1")</script> & [bold]cat[/bold]' in words
    assert "<script" not in page and "<b>.png" not in page and "<i>more" not in page
    assert str(folder) in words


def test_thumbnails_are_small_pictures_with_what_is_cut_off(folder: Path) -> None:
    facts = inspect_folder(folder, (64,))
    page = make_page(facts)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', page)]
    assert len(images) == 4
    assert {image.format for image in images} == {"WEBP"}
    assert max(max(image.size) for image in images) <= 176
    wide = next(example for bucket in facts.buckets for example in bucket.examples if example.cropped)
    left, top, right, bottom = wide.box
    assert (right - left) * (bottom - top) == pytest.approx(1 - wide.cropped, abs=1e-3)
    place = f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}"
    assert page.count('<i style="left:') == page.count(f'<i style="{place}"></i>') == 1
    assert page.count('loading="lazy"') == 4


def test_many_pictures_are_capped_and_the_page_stays_small(tmp_path: Path) -> None:
    for number in range(40):
        gradient = Image.radial_gradient("L").convert("RGB").rotate(9 * number).resize((256, 256))
        gradient.save(tmp_path / f"{number:02}.jpg", quality=80)
    facts = inspect_folder(tmp_path, (256,))
    page = make_page(facts)
    assert facts.buckets[0].pictures == 40
    assert f"and {40 - len(facts.buckets[0].examples)} more" in page
    assert len(page) < 500_000
    assert make_page(facts) == page


def test_headers_alone_give_a_page_without_thumbnails(folder: Path) -> None:
    page = make_page(inspect_folder(folder, (64,), pixels=False))
    assert "<img" not in page and "wide.png" in page


def terminal(folder: Path, width: int, *, in_pipe: bool = True) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=not in_pipe, highlight=False)
    print_inspection(inspect_folder(folder, (64,), trigger="m1k4"), console)
    return file.getvalue()


def test_a_pipe_gets_plain_text_and_whole_names(folder: Path) -> None:
    text = terminal(folder, 40)
    assert "\x1b" not in text
    for name in ("<b>.png", "[red]x.png", "a'b\"c.png"):
        assert f"  {name}: not an image that can be read\n" in text
    assert "broken, left out: 3\n" in text
    assert "trigger 'm1k4': written in 0, put in front of 4\n" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_is_not_overflown(folder: Path, width: int) -> None:
    text = terminal(folder, width, in_pipe=False)
    assert "\x1b[" in text
    assert max(len(line) for line in re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()) <= width


def test_names_that_cannot_be_printed_are_spelled_out() -> None:
    assert shown("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert shown("Zo\xeb \u732b.png") == "Zo\xeb \u732b.png"
    assert shown(os.fsdecode(b"a\xff.png")).isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_shown_everywhere(tmp_path: Path) -> None:
    Image.radial_gradient("L").resize((64, 64)).save(tmp_path / "good.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.png")).write_bytes(b"no picture")
    facts = inspect_folder(tmp_path, (64,))
    for text in (make_page(facts), facts.to_json(), terminal(tmp_path, 80)):
        assert "bad" in text.encode("utf-8").decode("utf-8")


def test_small_shares_are_not_told_as_none() -> None:
    assert [percent(share) for share in (0, 0.004, 0.096, 0.5)] == ["0%", "0.4%", "9.6%", "50%"]
