"""`aitk run` as a user sees it: real processes, exit codes, what is printed. The processes are a folder extension."""

import os
import signal
import subprocess
import time
from pathlib import Path

import folder_extension
import pytest
from folder_extension import acted, run_py, write_job

from toolkit.cli.app import run_command_line

EXAMPLE = str(folder_extension.ROOT / "extensions/example/count_images.yaml")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder to start in, with the extension."""
    folder_extension.write_extension(tmp_path)
    return tmp_path


def run(here: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUTF8": "1", **env}
    return subprocess.run(run_py(*arguments), cwd=here, env=environment, capture_output=True, text=True, check=False)


def started(here: Path) -> list[str]:
    return [line.split()[0] for line in acted(here)]


def test_job_that_works_ends_with_0(here: Path) -> None:
    result = run(here, write_job(here, "a"))
    assert (result.returncode, result.stderr) == (0, "")
    assert "a does work" in result.stdout
    assert "Result:" not in result.stdout


@pytest.mark.parametrize(
    ("do", "sentence"), [("fail", "job 'a' failed: the sky fell"), ("crash", "job 'a' failed: KeyError: 'key'")]
)
def test_failure_is_one_sentence_and_ends_with_1(here: Path, do: str, sentence: str) -> None:
    result = run(here, write_job(here, "a", do))
    assert result.returncode == 1
    assert result.stderr.splitlines() == [sentence, "(AITK_DEBUG=1 shows where)"]
    assert (here / "a.heard").exists()


def test_a_value_that_does_not_fit_the_model_is_told_with_its_line_and_ends_with_2(here: Path) -> None:
    result = run(here, write_job(here, "a", "blame"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == "job 'a' failed: a.yaml:6: do.what: this model cannot do that"


def test_debug_shows_the_traceback(here: Path) -> None:
    result = run(here, write_job(here, "a", "fail"), AITK_DEBUG="1")
    assert "Traceback" in result.stderr
    assert "process.py" in result.stderr


def test_log_file_has_the_console_and_the_traceback(here: Path) -> None:
    result = run(here, write_job(here, "a", "fail"), "-l", "logs/a.txt")
    text = (here / "logs/a.txt").read_text(encoding="utf-8")
    assert "Traceback" not in result.stdout + result.stderr
    assert "a does fail" in result.stdout
    for part in ("a does fail", "job 'a' failed: the sky fell", "Traceback"):
        assert part in text


def test_nothing_starts_if_one_config_is_bad(here: Path) -> None:
    good = write_job(here, "good")
    (here / "bad.yaml").write_text(
        "job: extension\nconfig:\n  name: bad\n  process:\n    - type: actt\n", encoding="utf-8"
    )
    result = run(here, good, "bad.yaml", "missing.yaml", "-r")
    assert result.returncode == 2
    assert started(here) == []
    assert "bad.yaml:5" in result.stderr
    assert "did you mean 'act'?" in result.stderr
    assert "missing.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_first_failure_ends_the_row(here: Path) -> None:
    names = [write_job(here, "a"), write_job(here, "b", "fail"), write_job(here, "c")]
    result = run(here, *names)
    assert result.returncode == 1
    assert started(here) == ["a", "b"]
    assert " - 1 completed job\n - 1 failure\n - 1 not started" in result.stdout


def test_recover_goes_on_and_still_ends_with_1(here: Path) -> None:
    names = [write_job(here, "a"), write_job(here, "b", "fail"), write_job(here, "c")]
    result = run(here, *names, "--recover")
    assert result.returncode == 1
    assert started(here) == ["a", "b", "c"]
    assert " - 2 completed jobs\n - 1 failure\n=" in result.stdout


def test_clean_stop_ends_the_row_with_130(here: Path) -> None:
    result = run(here, write_job(here, "a", "stop"), write_job(here, "b"), "-r")
    assert result.returncode == 130
    assert started(here) == ["a"]
    assert "job 'a' was stopped: saved at step 7" in result.stderr
    assert not (here / "a.heard").exists()


def test_ctrl_c_where_no_process_handles_it_ends_with_130(here: Path) -> None:
    process = subprocess.Popen(run_py(write_job(here, "a", "wait")), cwd=here, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not started(here) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert (here / "a.heard").read_text(encoding="utf-8") == "KeyboardInterrupt"


def test_env_file_is_read_and_the_environment_wins(here: Path) -> None:
    text = "# \u00e9\nexport FROM_FILE='a # b'  # c\nFROM_BOTH=file\n"
    (here / ".env").write_text(text, encoding="latin-1")
    result = run(here, write_job(here, "a", "env"), FROM_BOTH="shell")
    assert "a # b shell" in result.stdout


def test_dry_run_prints_the_plan_and_runs_nothing(here: Path) -> None:
    result = run(here, write_job(here, "a"), EXAMPLE, "--dry-run")
    assert result.returncode == 0
    assert started(here) == []
    assert "job 'a' (extension)" in result.stdout
    assert "count the images below datasets" in result.stdout


def test_name_and_set_reach_the_process(here: Path) -> None:
    file = here / write_job(here, "shared")
    file.write_text(file.read_text(encoding="utf-8").replace("name: shared", 'name: "[name]"'), encoding="utf-8")
    result = run(here, "shared.yaml", "-n", "mine", "--set", "do.what=sing")
    assert "mine does sing" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--no-such-option", "a.yaml"]])
def test_wrong_usage_ends_with_2(here: Path, arguments: list[str]) -> None:
    result = run(here, *arguments)
    assert result.returncode == 2
    assert "Usage" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--slurm --gpus 2", "--gpus is for this machine; with --slurm, say --set launch.gpus_per_node=N"),
        ("--slurm --background", "--background is for this machine"),
        ("--background --wait", "--wait is for jobs on a cluster; add --slurm, or leave it out"),
        ("--test-only", "--test-only is for jobs on a cluster; add --slurm, or leave it out"),
        ("--slurm --test-only --wait", "--test-only submits nothing that --wait could wait for"),
        ("--slurm --set launch.type=local --wait --dry-run", ""),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["run", EXAMPLE, *options.split()]) == (2 if told else 0)
    assert capsys.readouterr().err.startswith(told)
