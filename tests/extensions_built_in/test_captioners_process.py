"""`job: caption`: which pictures get captions, what is written and logged, stopping, kills, third-party captioners."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import fork_ranks
from killed_run import kill_when, kills
from PIL import Image

from jobs import Stopped, get_job
from jobs.job import Job
from toolkit.cli.app import run_command_line
from toolkit.config import ConfigError
from toolkit.launch import local

ROOT = Path(__file__).resolve().parents[2]
SPEAKER = '''
"""A captioner of a third party: says the size of each picture, its prompt, and what it is told to."""

import time
from pathlib import Path

from toolkit.config.plugins import CaptionerPlugin
from toolkit.config.section import works


class Speaker(CaptionerPlugin):
    model_name_or_path: str = works("", "There is no model.")
    words: str = works("", "Said after the size.")
    question: str = works("", "The prompt.")
    pause: float = works(0.0, "Seconds per batch.")

    @property
    def prompt(self):
        return self.question

    def build(self, context):
        return Says(self)


class Says:
    def __init__(self, section):
        self.section = section

    def describe(self, subjects, min_words=1):
        time.sleep(self.section.pause)
        if any(subject.image.width == 13 for subject in subjects):
            raise ValueError("bad luck")
        more = " and more" * (min_words // 2) if min_words > 1 and self.section.words == "" else ""
        return [f"{s.image.width}x{s.image.height} {s.prompt} {self.section.words}{more}\\n" for s in subjects]
'''


@pytest.fixture
def extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of extensions with the captioner `speaker`."""
    from toolkit.registry import get_registry

    folder = tmp_path / "mine" / "speaking"
    (folder / "speaking_captioner").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "speaking"\nversion = "1"\n'
        '[project.entry-points."aitk.captioners"]\nspeaker = "speaking_captioner:Speaker"\n'
    )
    (folder / "speaking_captioner" / "__init__.py").write_text(SPEAKER)
    monkeypatch.setenv("AITK_EXTENSIONS", str(folder.parent))
    get_registry.cache_clear()
    yield folder.parent
    get_registry.cache_clear()
    sys.modules.pop("speaking_captioner", None)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """a.png, b.jpg (captioned), c.png (an empty caption), sub/d.webp, e.png (broken), notes.txt."""
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for name, size in (("a.png", (20, 10)), ("b.jpg", (30, 10)), ("c.png", (40, 10)), ("sub/d.webp", (50, 10))):
        Image.new("RGB", size, "red").save(folder / name)
    (folder / "b.txt").write_text("mine\n")
    (folder / "c.txt").write_text(" \n")
    (folder / "e.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "notes.txt").write_text("not a caption")
    return folder


@pytest.fixture
def job_of(tmp_path: Path, pictures: Path, extensions: Path) -> Callable[..., Job]:
    """A job with the captioner `speaker` on `pictures`; keywords are keys of its section."""

    def make(**keys: Any) -> Job:
        section = {"type": "speaker", "path_to_caption": str(pictures), **keys}
        process = {
            "type": "captioner",
            "training_folder": str(tmp_path / "output"),
            "device": "cpu",
            "caption": section,
        }
        return get_job({"job": "caption", "config": {"name": "run", "process": [process]}})

    return make


def log(tmp_path: Path) -> list[dict[str, Any]]:
    text = (tmp_path / "output/run/captions.jsonl").read_text(encoding="utf-8")
    return [entry for entry in map(json.loads, text.splitlines()) if "status" in entry]


def captions(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file.read_text() for file in sorted(folder.rglob("*.txt"))}


def test_writes_what_is_missing_and_logs_all(
    job_of: Callable[..., Job], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in pictures.rglob("*") if file.is_file()}
    job_of(batch_size=2).run()
    assert captions(pictures) == {
        "a.txt": "20x10\n",
        "b.txt": "mine\n",
        "c.txt": "40x10\n",
        "notes.txt": "not a caption",
        "sub/d.txt": "50x10\n",
    }
    assert all(file.read_bytes() == data for file, data in before.items() if file.name != "c.txt")
    entries = {entry["file"]: entry for entry in log(tmp_path)}
    statuses = {name: entry["status"] for name, entry in entries.items()}
    assert statuses == {
        "a.png": "written",
        "b.jpg": "skipped",
        "c.png": "written",
        "e.png": "failed",
        "sub/d.webp": "written",
    }
    assert entries["a.png"]["caption"] == "20x10" and entries["a.png"]["seconds"] >= 0
    assert entries["b.jpg"]["reason"] == "has a caption"
    out = capsys.readouterr().out
    assert "1 left alone (has a caption), 4 to caption" in out
    assert "e.png" in out and "captions: 3 written, 1 failed" in out and "captions: 4/4" in out
    assert {path.name for path in (tmp_path / "output/run").iterdir()} == {
        "captions.jsonl",
        "config.yaml",
        "versions.json",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always text")
@pytest.mark.parametrize("to_lines", [False, True])
def test_a_name_that_is_no_text_stops_nothing(
    to_lines: bool, job_of: Callable[..., Job], pictures: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"odd\xff")
    Image.new("RGB", (60, 10), "red").save(pictures / "odd.png")
    (pictures / "odd.png").rename(pictures / f"{odd}.png")
    lines = tmp_path / "all.jsonl"
    job_of(**({"jsonl": str(lines)} if to_lines else {})).run()
    assert {entry["file"]: entry["status"] for entry in log(tmp_path)}[f"{odd}.png"] == "written"
    if to_lines:
        names = [json.loads(line)["file_name"] for line in lines.read_text(encoding="utf-8").splitlines()]
        assert f"pictures/{odd}.png" in names
    else:
        assert (pictures / f"{odd}.txt").read_text() == "60x10\n"


def test_second_run_has_nothing_to_do(job_of: Callable[..., Job], pictures: Path, capsys: Any) -> None:
    (pictures / "e.png").unlink()
    job_of().run()
    written = captions(pictures)
    capsys.readouterr()
    job_of(words="other").run()
    assert captions(pictures) == written
    assert "0 to caption" in capsys.readouterr().out


def test_recaption_replaces_and_starts_afresh_each_time(job_of: Callable[..., Job], pictures: Path) -> None:
    job_of(recaption=True, words="one").run()
    assert captions(pictures)["b.txt"] == "30x10 one\n"
    (pictures / "b.txt").write_text("edited")
    job_of(recaption=True, words="one").run()
    assert captions(pictures)["b.txt"] == "30x10 one\n"


def test_template_prefix_and_suffix(job_of: Callable[..., Job], pictures: Path) -> None:
    job_of(
        question="{filename} in {folder} was '{caption}' {x} of {trigger}; ",
        prefix="{trigger}, ",
        suffix=", {folder}",
        trigger_word="m1k4",
        recaption=True,
    ).run()
    assert captions(pictures)["b.txt"] == "m1k4, 30x10 b in pictures was 'mine' {x} of m1k4;, pictures\n"
    assert captions(pictures)["sub/d.txt"].endswith(", sub\n")


def test_trigger_without_a_word_is_an_error(job_of: Callable[..., Job]) -> None:
    with pytest.raises(ConfigError, match=r"caption.prefix: holds \{trigger\}, but caption.trigger_word is not set"):
        job_of(prefix="{trigger}, ")


def test_caption_that_is_no_text_is_the_users(job_of: Callable[..., Job], pictures: Path, capsys: Any) -> None:
    (pictures / "a.txt").write_bytes(b"caf\xe9")
    job_of().run()
    assert (pictures / "a.txt").read_bytes() == b"caf\xe9"
    assert "a.txt is not UTF-8 (byte 3); repair it, or set recaption" in capsys.readouterr().out
    job_of(recaption=True).run()
    assert captions(pictures)["a.txt"] == "20x10\n"


def test_pictures_that_share_a_caption(job_of: Callable[..., Job], pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (60, 10)).save(pictures / "a.webp")
    job_of(recaption=True).run()
    assert captions(pictures)["a.txt"] == "20x10\n"
    (entry,) = [entry for entry in log(tmp_path) if entry["file"] == "a.webp"]
    assert entry["status"] == "skipped" and "shares its caption with a.png" in entry["reason"]


def test_one_picture_and_other_ending(job_of: Callable[..., Job], pictures: Path) -> None:
    job_of(path_to_caption=str(pictures / "b.jpg"), caption_extension="caption").run()
    assert (pictures / "b.caption").read_text() == "30x10\n"
    assert not (pictures / "a.caption").exists()


def test_extensions_choose_pictures(job_of: Callable[..., Job], pictures: Path) -> None:
    job_of(extensions=["WEBP"]).run()
    assert set(captions(pictures)) == {"b.txt", "c.txt", "notes.txt", "sub/d.txt"}
    with pytest.raises(ConfigError, match=r"caption.extensions: .mp4: only pictures get captions"):
        job_of(extensions=["mp4"])


def test_large_pictures_are_scaled_down_by_area(job_of: Callable[..., Job], pictures: Path) -> None:
    Image.new("RGB", (400, 100)).save(pictures / "a.png")
    Image.new("L", (400, 100)).save(pictures / "b.jpg")
    job_of(max_res=100, recaption=True).run()
    assert captions(pictures)["a.txt"] == captions(pictures)["b.txt"] == "200x50\n"


def test_one_bad_picture_does_not_take_its_batch_along(
    job_of: Callable[..., Job], pictures: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (13, 10)).save(pictures / "aa.png")
    job_of(batch_size=8).run()
    assert captions(pictures)["a.txt"] == "20x10\n" and "aa.txt" not in captions(pictures)
    (entry,) = [entry for entry in log(tmp_path) if entry["file"] == "aa.png"]
    assert (entry["status"], entry["reason"]) == ("failed", "bad luck")


def test_nothing_written_is_a_failure(job_of: Callable[..., Job], pictures: Path) -> None:
    with pytest.raises(ValueError, match=r"no caption could be written.*e\.png"):
        job_of(path_to_caption=str(pictures / "e.png")).run()


def test_short_captions_are_asked_for_again_then_left_out(
    job_of: Callable[..., Job], pictures: Path, tmp_path: Path
) -> None:
    job_of(min_words=3).run()
    assert captions(pictures)["a.txt"] == "20x10 and more\n"
    with pytest.raises(ValueError, match="only 2 of 3 words: '30x10 only'"):
        job_of(min_words=3, words="only", recaption=True, extensions=["jpg"], prefix="many words here ").run()
    assert captions(pictures)["b.txt"] == "mine\n"
    assert log(tmp_path)[-1]["status"] == "short"


def test_caption_that_came_meanwhile_stays(job_of: Callable[..., Job], pictures: Path) -> None:
    from extensions_built_in.captioners import process

    job = job_of()
    described = process._described

    def slow(*arguments: Any) -> Any:
        (pictures / "sub/d.txt").write_text("typed by hand")
        return described(*arguments)

    process._described, kept = slow, described
    try:
        job.run()
    finally:
        process._described = kept
    assert captions(pictures)["sub/d.txt"] == "typed by hand"
    assert captions(pictures)["a.txt"] == "20x10\n"


class TestJsonLines:
    """All captions in one file."""

    def rows(self, file: Path) -> list[tuple[str, str]]:
        entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return [(entry["file_name"], entry["caption"]) for entry in entries]

    def test_names_are_relative_to_the_file(self, job_of: Callable[..., Job], pictures: Path, tmp_path: Path) -> None:
        file = tmp_path / "meta" / "captions.jsonl"
        job_of(jsonl=str(file), batch_size=3).run()
        names = ["a.png", "b.jpg", "c.png", "sub/d.webp"]
        sizes = ["20x10", "30x10", "40x10", "50x10"]
        assert self.rows(file) == [(f"../pictures/{name}", size) for name, size in zip(names, sizes, strict=True)]
        assert captions(pictures)["b.txt"] == "mine\n" and "a.txt" not in captions(pictures)

    def test_what_is_there_stays_and_a_torn_line_goes(self, job_of: Callable[..., Job], pictures: Path) -> None:
        file = pictures / "metadata.jsonl"
        kept = '{"file_name": "b.jpg", "caption": "mine", "label": 3}\n{"file_name": "a.png", "caption": " "}\n'
        file.write_text(kept + '{"file_name": "c.png", "capt')
        job_of(jsonl=str(file)).run()
        assert self.rows(file) == [("b.jpg", "mine"), ("a.png", "20x10"), ("c.png", "40x10"), ("sub/d.webp", "50x10")]
        job_of(jsonl=str(file), recaption=True, words="new").run()
        assert self.rows(file)[0] == ("b.jpg", "30x10 new")
        assert json.loads(file.read_text().splitlines()[0])["label"] == 3

    def test_file_of_another_kind_is_not_written_to(self, job_of: Callable[..., Job], pictures: Path) -> None:
        file = pictures / "other.jsonl"
        file.write_text('{"image": "b.jpg"}\n')
        with pytest.raises(ValueError, match=r"other\.jsonl:1: is not a line"):
            job_of(jsonl=str(file)).run()
        assert file.read_text() == '{"image": "b.jpg"}\n'


def test_dry_run_plan_counts_and_touches_nothing(job_of: Callable[..., Job], pictures: Path, tmp_path: Path) -> None:
    lines = job_of().plan()
    assert any(f"5 in {pictures}: 1 left alone (has a caption), 4 to caption" in line for line in lines)
    assert lines[-1].strip() == "sub/d.webp"
    assert not (tmp_path / "output").exists() and captions(pictures)["c.txt"] == " \n"


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch has its line."""
    monkeypatch.setattr("toolkit.reporting.progress.LINE_S", 0.0)


@pytest.mark.usefixtures("talkative")
def test_ctrl_c_finishes_the_batch(job_of: Callable[..., Job], pictures: Path, signal_at: Any, capsys: Any) -> None:
    with signal_at("captions: 1/4"), pytest.raises(Stopped, match=r"1 written.*same command continues"):
        job_of(recaption=False).run()
    assert "a.txt" in captions(pictures) and "d.txt" not in captions(pictures)
    job_of().run()
    assert captions(pictures)["sub/d.txt"] == "50x10\n"


@pytest.mark.usefixtures("talkative")
def test_stopped_recaption_goes_on_where_it_was(job_of: Callable[..., Job], pictures: Path, signal_at: Any) -> None:
    with signal_at("captions: 1/5"), pytest.raises(Stopped):
        job_of(recaption=True, words="x").run()
    (pictures / "a.txt").write_text("edited since")
    job_of(recaption=True, words="x", batch_size=3).run()
    assert captions(pictures)["a.txt"] == "edited since"
    assert captions(pictures)["b.txt"] == "30x10 x\n"
    # that one came to its end
    job_of(recaption=True, words="x").run()
    assert captions(pictures)["a.txt"] == "20x10 x\n"


@kills
@pytest.mark.parametrize("to_lines", [False, True])
def test_kill_and_resume(to_lines: bool, extensions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9 between two batches: nothing torn, nothing lost, the rest follows."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(12):
        Image.new("RGB", (20 + index, 10)).save(folder / f"{index:02d}.png")
    lines = folder / "metadata.jsonl"
    options = ["--jsonl", str(lines)] if to_lines else []
    command = ["caption", str(folder), "--captioner", "speaker", "--output", str(tmp_path / "output"), *options]

    def num_written() -> int:
        if to_lines:
            return len(lines.read_text().splitlines()) if lines.exists() else 0
        # a kill may leave one that was being written, whose name starts with a dot
        return len(list(folder.glob("[!.]*.txt")))

    kill_when(lambda: num_written() >= 2, run_command_line, [*command, "--set", "caption.pause=0.2"])
    before = num_written()
    assert 2 <= before < 12
    capsys.readouterr()
    assert run_command_line(command) == 0
    assert f"{before} left alone (has a caption), {12 - before} to caption" in capsys.readouterr().out
    found = {}
    if to_lines:
        found = {entry["file_name"]: entry["caption"] for entry in map(json.loads, lines.read_text().splitlines())}
        assert len(lines.read_text().splitlines()) == 12
    else:
        found = {f"{file.stem}.png": file.read_text().strip() for file in folder.glob("*.txt")}
    assert found == {f"{index:02d}.png": f"{20 + index}x10" for index in range(12)}
    assert not list(folder.glob(".aitk*"))


def test_config_of_ai_toolkit_works(pictures: Path, tmp_path: Path) -> None:
    """The keys that its user interface writes, with a model of ours."""
    from extensions_built_in.captioners.tiny import save_qwen

    model = save_qwen(tmp_path / "qwen")
    section = {
        "model_name_or_path": str(model),
        "path_to_caption": str(pictures),
        "extensions": ["jpg", "jpeg", "png", "bmp", "webp"],
        "caption_extension": "txt",
        "dtype": "float32",
        "quantize": True,
        "qtype": "float8",
        "low_vram": True,
        "recaption": False,
        "max_res": 512,
        "max_new_tokens": 4,
        "thinking": False,
        "caption_prompt": "Describe this image.",
        "compile": False,
        "batch_size": 2,
        "num_workers": 3,
        "layer_offloading": False,
        "layer_offloading_percent": 1.0,
    }
    process = {"type": "Qwen3VLCaptioner", "sqlite_db_path": "./aitk_db.db", "device": "cpu", "caption": section}
    process["training_folder"] = str(tmp_path / "output")
    job = get_job({"job": "extension", "config": {"name": "run", "process": [process]}})
    assert all("torchao" in notice for notice in job.notices)
    job.run()
    assert {"a.txt", "c.txt", "sub/d.txt"} <= {name for name, text in captions(pictures).items() if text.strip()}


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"type": "blib"}, "did you mean 'blip'"),
        ({"type": "blip", "general_threshold": 1}, "caption.general_threshold"),
        ({"type": "blip", "compile": True}, "caption.compile: not supported yet"),
        ({"type": "blip", "min_new_tokens": 200}, "min_new_tokens: is above max_new_tokens"),
        ({"type": "blip", "num_beams": 2, "temperature": 1}, "num_beams: cannot be combined with temperature"),
        ({"type": "florence2", "caption_prompt": "<OD>"}, "<OD> gives no caption"),
        ({"type": "wd_tagger", "caption_prompt": "x"}, "caption.caption_prompt"),
        ({"type": "blip", "caption_extension": "png"}, "'png' cannot be the ending of caption files"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    process = {"type": "captioner", "caption": {"path_to_caption": str(tmp_path), **keys}}
    with pytest.raises(ConfigError, match=message):
        get_job({"job": "caption", "config": {"name": "run", "process": [process]}})


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that nobody can write to")
def test_a_log_folder_that_cannot_be_is_named(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "taken").touch()
    command = ["caption", str(pictures), "--captioner", "blip", "--output"]
    for place, text in (("/proc/x", "/proc cannot be written to"), (str(tmp_path / "taken/x"), "taken is a file, not")):
        assert run_command_line([*command, place]) == 2
        assert text in (said := capsys.readouterr().err) and len(said.splitlines()) == 1
    (tmp_path / f"caption_{pictures.name}").touch()
    assert run_command_line([*command, str(tmp_path)]) == 2
    assert "is a file, where the folder of the run should be" in capsys.readouterr().err


@pytest.mark.parametrize(
    "example", sorted((ROOT / "config/examples").glob("caption_*.yaml")), ids=lambda path: path.stem
)
def test_examples_are_valid(example: Path) -> None:
    from toolkit.config.preflight import preflight

    job = get_job(example)
    assert not job.notices
    assert [problem for problem in preflight(job) if "/path/to/" not in problem.message] == []
    text = example.read_text(encoding="utf-8")
    assert text.isascii() and f"#   aitk run config/examples/{example.name}" in text
    assert not [line for line in text.splitlines() if len(line) > 120]


@kills
class TestSeveralProcesses:
    """Two processes caption a folder together."""

    @pytest.fixture(params=["beside", "in one file"])
    def job(self, request: Any, job_of: Callable[..., Job], pictures: Path, tmp_path: Path) -> Callable[..., Job]:
        """A job on 12 pictures, one of them broken."""
        for number in range(7):
            Image.new("RGB", (60 + number, 10)).save(pictures / f"f{number}.png")
        file = {"jsonl": str(tmp_path / "all.jsonl")} if request.param == "in one file" else {}
        return lambda **keys: job_of(**{"recaption": True, "batch_size": 2, "num_workers": 1, **file, **keys})

    def captions(self, pictures: Path, tmp_path: Path) -> dict[str, str]:
        """By picture, wherever they are."""
        file = tmp_path / "all.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        found = [(entry["file_name"], entry["caption"]) for entry in map(json.loads, lines)]
        return dict(found) if found else {name: text for name, text in captions(pictures).items() if text[0].isdigit()}

    def run(self, monkeypatch: pytest.MonkeyPatch, job: Job) -> int:
        """Have two processes do a job; the exit code."""

        def main(command: Any) -> int:
            try:
                job.run()
            except Stopped as stopped:
                print(stopped)
                return 130
            return 0

        fork_ranks(monkeypatch, main)
        return local.run_ranks([], 2, os.environ)

    def after_each(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
        """Call `act` with the rank when a batch was described."""
        from extensions_built_in.captioners import process

        described = process._described

        def acting(*arguments: Any) -> Any:
            texts = described(*arguments)
            act(int(os.environ["RANK"]))
            return texts

        monkeypatch.setattr(process, "_described", acting)

    def test_they_write_what_one_writes(
        self, job: Any, pictures: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def note(rank: int) -> None:
            with (tmp_path / "ranks").open("a") as file:
                file.write(str(rank))

        with monkeypatch.context() as patch:
            self.after_each(patch, note)
            assert self.run(patch, job()) == 0
        assert Counter((tmp_path / "ranks").read_text()) == {"0": 3, "1": 3}
        out = capfd.readouterr().out
        assert "captions: 11 written, 1 failed" in out and "captions: 12/12" in out and "e.png" in out
        both, entries = self.captions(pictures, tmp_path), log(tmp_path)
        assert len(both) == 11 and Counter(entry["status"] for entry in entries) == {"written": 11, "failed": 1}
        assert len({entry["file"] for entry in entries}) == 12
        job().run()
        assert self.captions(pictures, tmp_path) == both

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    @pytest.mark.parametrize("rank", [0, 1])
    def test_the_next_start_captions_the_others(
        self, number: int, rank: int, job: Any, pictures: Path, tmp_path: Path, capfd: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        times: list[int] = []

        def end(own: int) -> None:
            times.append(own)
            if own == rank and len(times) == 2:
                os.kill(os.getppid() if number == signal.SIGTERM else os.getpid(), number)
                time.sleep(0.5)  # until it comes back

        with monkeypatch.context() as patch:
            self.after_each(patch, end)
            patch.setattr(local, "GRACE_S", 0.5)
            assert self.run(patch, job(batch_size=1, pause=0.1)) == (130 if number == signal.SIGTERM else 1)
        done = {entry["file"] for entry in log(tmp_path) if entry["status"] == "written"}
        written = self.captions(pictures, tmp_path)
        assert 1 <= len(done) <= len(written) <= 11 and len(done) < 11
        if number == signal.SIGTERM:
            assert len(done) == len(written)
            assert f"{len(done)} written" in capfd.readouterr().out
        job(batch_size=1, pause=0.1).run()
        assert f"{12 - len(done)} to caption" in capfd.readouterr().out
        assert len(self.captions(pictures, tmp_path)) == 11
        assert not list(pictures.rglob(".aitk-*"))
        files = [entry["file"] for entry in log(tmp_path) if entry["status"] == "written"]
        assert len(files) == len(set(files)) == 11
