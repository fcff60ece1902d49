"""The factory, the order of processes, who hears of a failure, and what old extensions rely on."""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toolkit.job
from jobs import KINDS, BaseExtensionProcess, Job, Stopped, get_job, run_job
from toolkit.config import ConfigError
from toolkit.config.plugins import JOB_KINDS, ProcessPlugin
from toolkit.registry import get_registry

OLD_STYLE = """
from toolkit.extension import Extension
from jobs.process import BaseExtensionProcess

STARTED = []

class Note(BaseExtensionProcess):
    def __init__(self, process_id, job, config):
        super().__init__(process_id, job, config)
        self.heard = []
        STARTED.append(self)

    def run(self):
        super().run()
        self.ran = True
        if self.get_conf("fail"):
            raise {"value": ValueError("no good"), "stop": __import__("jobs").Stopped("saved")}[self.get_conf("fail")]

    def on_error(self, error):
        self.heard.append(error)
        if self.get_conf("deaf"):
            raise OSError("on_error itself")

class NoteExtension(Extension):
    uid = "note"
    name = "Note"

    @classmethod
    def get_process(cls):
        return Note

AI_TOOLKIT_EXTENSIONS = [NoteExtension]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an old-style extension and one whose process runs under other job kinds."""
    write(tmp_path / "extensions/notes/__init__.py", OLD_STYLE)
    monkeypatch.chdir(tmp_path)
    get_registry.cache_clear()
    loaded = set(sys.modules)
    yield tmp_path
    get_registry.cache_clear()
    for name in set(sys.modules) - loaded:
        if name.startswith("extensions.") or name == "my_mods":
            del sys.modules[name]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def config(*processes: dict[str, Any], job: str = "extension", **more: Any) -> dict[str, Any]:
    return {"job": job, "config": {"name": "mine", "process": list(processes), **more}, "meta": {"version": "2"}}


def started() -> list[Any]:
    return sys.modules["extensions.notes"].STARTED


def test_processes_of_a_dict_run_in_order_and_know_their_job() -> None:
    job = run_job(config({"type": "note", "a": {"b": 1}}, {"type": "note", "c": 2}, device="cuda:1"))
    assert [process.process_id for process in started()] == [0, 1]
    assert all(process.ran for process in started())
    assert job.process == started()
    assert started()[1].config == OrderedDict(type="note", c=2)
    assert (job.name, job.kind, job.meta, job.device) == ("mine", "extension", {"version": "2"}, "cuda:1")
    assert job.raw_config["job"] == "extension"
    assert job.config["name"] == "mine"


def test_two_equal_processes_keep_their_own_numbers() -> None:
    run_job(config({"type": "note"}, {"type": "note"}))
    assert [process.process_id for process in started()] == [0, 1]


def test_every_process_hears_of_a_failure_even_if_one_is_deaf(capsys: pytest.CaptureFixture[str]) -> None:
    job = get_job(config({"type": "note", "deaf": True}, {"type": "note", "fail": "value"}, {"type": "note"}))
    with pytest.raises(ValueError, match="no good"):
        job.run()
    assert [[str(error) for error in process.heard] for process in started()] == [["no good"]] * 3
    assert not hasattr(started()[2], "ran")
    assert "Note.on_error failed: OSError: on_error itself" in capsys.readouterr().err


def test_clean_stop_is_no_failure() -> None:
    with pytest.raises(Stopped, match="saved"):
        run_job(config({"type": "note", "fail": "stop"}, {"type": "note"}))
    assert [process.heard for process in started()] == [[], []]


def test_old_import_place_is_the_same_function() -> None:
    assert toolkit.job.run_job is run_job
    assert toolkit.job.get_job is get_job


def test_unknown_job_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'extension'"):
        get_job(config({"type": "note"}, job="extention"))


def test_extension_can_bring_the_processes_of_a_job_kind(here: Path) -> None:
    write(
        here / "extensions/mods/pyproject.toml",
        '[project.entry-points."aitk.processes"]\nrescale = "my_mods:Rescale"\nbroken = "my_mods:Missing"\n',
    )
    write(
        here / "extensions/mods/my_mods.py",
        "from jobs import BaseExtensionProcess\nfrom toolkit.config.plugins import ProcessPlugin\n"
        "class Rescale(ProcessPlugin):\n    jobs = ('mod',)\n"
        "    def build(self, job): return BaseExtensionProcess(0, job, {})\n",
    )
    assert get_job(config({"type": "rescale"}, job="mod")).kind == "mod"
    with pytest.raises(ConfigError, match="rescale"):
        get_job(config({"type": "rescale"}))
    with pytest.raises(ConfigError, match="rescale runs under `job: mod`, not under merge"):
        get_job(config({"type": "rescale"}, job="merge"))


def test_job_train_runs_the_trainer_with_one_notice(here: Path) -> None:
    (here / "images").mkdir()
    process = {
        "type": "sd_trainer",
        "training_folder": "out",
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "datasets": [{"folder_path": "images"}],
    }
    said = "job 'train' runs sd_trainer as job 'extension' does"
    assert get_job(config(process, job="train")).notices.count(said) == 1
    assert said not in get_job(config(process)).notices


def test_notices_are_said_once_when_the_job_starts(capsys: pytest.CaptureFixture[str]) -> None:
    plain = get_job(config({"type": "note"}))
    job = Job(plain.name, plain.kind, plain.meta, plain.document, plain.processes, ["read as meant"])
    assert capsys.readouterr().out == ""
    job.run()
    assert capsys.readouterr().out == "note: read as meant\n"


def test_get_conf_takes_dotted_keys_and_an_explicit_null_is_missing() -> None:
    job = get_job(config({"type": "note"}))
    keys = {"train": {"steps": "7", "lr": None, "flag": False}, "name": None, "list": [1]}
    process = BaseExtensionProcess(3, job, keys)
    assert process.get_conf("train.steps") == "7"
    assert process.get_conf("train.steps", as_type=int) == 7
    assert process.get_conf("train.lr", 0.5, as_type=float) == 0.5
    assert process.get_conf("train.flag", True) is False
    assert process.get_conf("train.steps.deeper", "default") == "default"
    assert process.get_conf("list.0") is None
    assert process.name == "mine"
    for key in ("train.lr", "nowhere"):
        with pytest.raises(ValueError, match=f"config.process.3: '{key}' is required"):
            process.get_conf(key, required=True)


def test_meta_of_a_process_is_its_own() -> None:
    job = get_job(config({"type": "note"}))
    process = BaseExtensionProcess(0, job, {})
    process.add_meta({"added": 1})
    assert process.meta == {"version": "2", "added": 1}
    assert job.meta == {"version": "2"}


def test_every_job_kind_of_a_config_is_described() -> None:
    assert tuple(KINDS) == JOB_KINDS
    assert ProcessPlugin.jobs == ("extension",)
