"""Captions from names, edits of captions, and a journal that takes every one of them back to the byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.data.labels import journal
from toolkit.data.labels.edit import Found, Rule, edited, named
from toolkit.data.labels.filenames import caption_of
from toolkit.data.labels.journal import Change

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "name, caption",
    [
        ("a_red-car.jpg", "a red car"),
        ("a red car.jpg.jpg", "a red car"),
        ("a red car.PNG.jpeg", "a red car"),
        ("a+red.car.webp", "a red car"),
        ("a%20red%20car.gif", "a red car"),
        ("100%_cotton.png", "100% cotton"),
        ("a red car (12).png", "a red car"),
        ("a_red_car_0001.jpg", "a red car"),
        ("a_red_car-3.jpg", "a red car"),
        ("a red car 007.jpg", "a red car"),
        ("a red car - Copy (2).jpg", "a red car"),
        ("a red car_1 (3).jpg", "a red car"),
        ("route 66.jpg", "route 66"),
        ("paris_1985.jpg", "paris 1985"),
        ("a blue t-shirt, wet.png", "a blue t-shirt, wet"),
        ("blue_t-shirt.png", "blue t shirt"),
        ("sdxl v1.5 sample.png", "sdxl v1.5 sample"),
        ("caf\u00e9_au_lait.jpg", "caf\u00e9 au lait"),
        ("\u732b.jpg", "\u732b"),
        ("IMG_1234.jpg", ""),
        ("DSC00012.JPG", ""),
        ("PXL_20230401_123456789.jpg", ""),
        ("20230401_123456.jpg", ""),
        ("IMG-20230401-WA0003.jpg", ""),
        ("Screenshot 2023-04-01 at 12.34.56.png", ""),
        ("3f2504e0-4f89-11d3-9a0c-0305e82c3301.png", ""),
        ("0001.png", ""),
        ("(3).png", ""),
        ("untitled.png", ""),
        ("portrait.png", "portrait"),
        ("portrait 1985.png", "portrait 1985"),
        ("photo of a dog 2.png", "photo of a dog 2"),
        ("facade.png", "facade"),
        ("person.png", "person"),
        ("deadbeef.png", "deadbeef"),
    ],
)
def test_names_become_captions(name: str, caption: str) -> None:
    assert caption_of(name) == caption


@pytest.mark.parametrize(
    "rule, before, after",
    [
        (Rule(find="cat", replace="dog"), "a cat, cats", "a dog, dogs"),
        (Rule(find="a.c", replace="x"), "abc a.c", "abc x"),
        (Rule(find=r"\b(\w+)cat\b", replace=r"\1dog", is_regex=True), "a tomcat", "a tomdog"),
        (Rule(prefix="photo of ", suffix=", sharp"), "a cat\n", "photo of a cat, sharp\n"),
        (Rule(prefix="x "), "\r\n a cat\r\n two\r\n", "\r\n x a cat\r\n two\r\n"),
        (Rule(remove_tags=("red", "1,000")), "red, car,red , 1,000 , blue red", "car, blue red"),
        (Rule(remove_tags=("red",)), "Red, a red", "Red, a red"),
        (Rule(dedupe_tags=True), "a, b,a, c ,b", "a, b, c"),
        (Rule(trigger="ohwx"), "a cat", "ohwx a cat"),
        (Rule(trigger="cat"), "a category", "cat a category"),
        (Rule(trigger="cat"), "a cat", "a cat"),
        (Rule(trigger="ohwx"), "a [trigger] cat", "a [trigger] cat"),
        (Rule(trigger="ohwx"), "", "ohwx"),
        (Rule(find="ohwx ", trigger="ohwx"), "ohwx cat", "ohwx cat"),
    ],
)
def test_rules(rule: Rule, before: str, after: str) -> None:
    rule.check()
    assert rule.apply(before) == after


@pytest.mark.parametrize("rule", [Rule(), Rule(replace="x"), Rule(find="(", is_regex=True),
                                  Rule(find="a", replace=r"\2", is_regex=True)])  # fmt: skip
def test_rules_that_cannot_be_done_are_told(rule: Rule) -> None:
    with pytest.raises(ValueError):
        rule.check()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures: two with captions, one with a caption that is no UTF-8, one without; and files beside them."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / ".hidden").mkdir()
    for name in ("a.jpg", "sub/b.PNG", "c.webp", "d.jpg", ".hidden/e.jpg"):
        (data / name).write_bytes(b"")
    (data / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n")
    (data / "sub/b.txt").write_bytes("a cat, caf\u00e9".encode())
    (data / "c.txt").write_bytes(b"a cat \xff")
    (data / ".hidden/e.txt").write_bytes(b"a cat")
    (data / "readme.txt").write_bytes(b"a cat is in here")
    return data


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and ".aitk" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def change(folder: Path, rule: Rule) -> tuple[Found, journal.Outcome]:
    found = Found()
    edit = journal.record(folder, "edit", edited(folder, rule, ".txt", found))
    assert edit is not None
    return found, journal.apply(folder, edit)


def test_only_captions_of_pictures_change_and_keep_their_form(folder: Path) -> None:
    before = contents(folder)
    found, outcome = change(folder, Rule(find="cat", replace="dog"))
    after = contents(folder)
    assert {name for name in after if after[name] != before[name]} == {"a.txt", "sub/b.txt"}
    assert after["a.txt"] == b"\xef\xbb\xbfa dog\r\n"
    assert after["sub/b.txt"] == "a dog, caf\u00e9".encode()
    assert (found.num_captions, found.num_changed, found.num_without, outcome.num_written) == (2, 2, 1, 2)
    assert found.problems == ["c.txt: not UTF-8 (byte 6); skipped"]


def test_undo_goes_back_step_by_step_to_the_byte(folder: Path) -> None:
    states = [contents(folder)]
    for rule in (Rule(find="cat", replace="dog"), Rule(prefix="x, "), Rule(remove_tags=("x",))):
        change(folder, rule)
        states.append(contents(folder))
    for state in reversed(states[:-1]):
        journal.undo(folder, journal.edits(folder)[-1])
        assert contents(folder) == state
    assert journal.edits(folder) == []


def test_a_file_that_was_changed_since_stops_the_undo_unless_forced(folder: Path) -> None:
    before = contents(folder)
    change(folder, Rule(find="cat", replace="dog"))
    (folder / "a.txt").write_bytes(b"by hand")
    state = contents(folder)
    assert journal.undo(folder, journal.edits(folder)[-1]).changed_since == ("a.txt",)
    assert contents(folder) == state and journal.edits(folder)
    journal.undo(folder, journal.edits(folder)[-1], force=True)
    assert contents(folder) == before and not journal.edits(folder)


def test_an_edit_that_was_cut_short_can_be_undone(folder: Path) -> None:
    before = contents(folder)
    found = Found()
    edit = journal.record(folder, "edit", edited(folder, Rule(prefix="x "), ".txt", found))
    assert edit is not None
    first = next(edit.changes())
    (folder / first.name).write_bytes(first.after or b"")
    journal.undo(folder, journal.edits(folder)[-1])
    assert contents(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_kill_leaves_old_or_new_files_and_a_journal_that_undoes_them(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"{number:04d}.jpg").write_bytes(b"")
        (folder / f"{number:04d}.txt").write_bytes(b"a cat")
    before = contents(folder)
    code = "from toolkit.cli.dataset_edit import edit; from pathlib import Path; import sys; "
    code += "print('go', flush=True); edit(Path(sys.argv[1]), prefix='x ')"
    child = subprocess.Popen([sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
    last = folder / "0100.txt"
    while last.read_bytes() == b"a cat":
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    now = contents(folder)
    changed = sum(now[name] != before[name] for name in before)
    assert 100 < changed < 1500
    assert {now[name] for name in before if name.endswith(".txt")} == {b"a cat", b"x a cat"}
    outcome = journal.undo(folder, journal.edits(folder)[-1])
    assert outcome.num_written == changed
    assert {name: data for name, data in contents(folder).items() if not name.startswith(".")} == before


def test_rights_and_links_stay(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_bytes(b"a cat")
    (folder / "d.txt").symlink_to(elsewhere)
    (folder / "a.txt").chmod(0o640)
    change(folder, Rule(prefix="x "))
    assert (folder / "d.txt").is_symlink() and elsewhere.read_bytes() == b"x a cat"
    assert (folder / "a.txt").stat().st_mode & 0o777 == 0o640


def test_a_caption_that_two_pictures_share_is_edited_once(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"")
    change(folder, Rule(prefix="x "))
    assert (folder / "a.txt").read_bytes() == b"\xef\xbb\xbfx a cat\r\n"


def test_a_file_that_changes_while_it_is_edited_is_left_alone(folder: Path) -> None:
    edit = journal.record(folder, "edit", edited(folder, Rule(prefix="x "), ".txt", Found()))
    assert edit is not None
    (folder / "a.txt").write_bytes(b"by hand")
    assert journal.apply(folder, edit).changed_since == ("a.txt",)
    assert (folder / "a.txt").read_bytes() == b"by hand"


def test_nothing_to_change_leaves_no_journal(folder: Path) -> None:
    assert journal.record(folder, "edit", edited(folder, Rule(find="zebra"), ".txt", Found())) is None
    assert not (folder / ".aitk").exists()


def test_names_become_caption_files_where_there_is_none(folder: Path) -> None:
    before = contents(folder)
    (folder / "sub/IMG_1234.jpg").write_bytes(b"")
    (folder / "a_red-car.jpeg").write_bytes(b"")
    (folder / "d.txt").write_bytes(b" \n")
    found = Found()
    changes = list(named(folder, ".txt", False, found))
    assert changes == [Change("a_red-car.txt", None, b"a red car\n"), Change("d.txt", b" \n", b"d\n")]
    assert (found.num_changed, found.num_kept, found.num_nameless) == (2, 3, 1)
    edit = journal.record(folder, "names", changes)
    assert edit is not None
    journal.apply(folder, edit)
    assert (folder / "a_red-car.txt").read_bytes() == b"a red car\n"
    journal.undo(folder, edit)
    assert not (folder / "a_red-car.txt").exists()
    assert {name: contents(folder)[name] for name in before} == before


def test_a_caption_that_cannot_be_opened_is_skipped(folder: Path) -> None:
    (folder / "a_red_car.png").write_bytes(b"")
    (folder / "a_red_car.txt").mkdir()
    found = Found()
    assert all(change.name != "a_red_car.txt" for change in named(folder, ".txt", False, found))
    assert "a_red_car.txt: Is a directory; skipped" in found.problems


def test_overwrite_replaces_captions(folder: Path) -> None:
    names = [change.name for change in named(folder, "txt", True, Found())]
    assert names == ["a.txt", "c.txt", "d.txt", "sub/b.txt"]


def test_a_damaged_journal_is_named(folder: Path) -> None:
    change(folder, Rule(prefix="x "))
    path = journal.edits(folder)[0].path
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"000001\.jsonl is no journal"):
        journal.edits(folder)
