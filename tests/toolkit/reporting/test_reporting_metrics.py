"""Numbers of a run in its files, over a kill and a resume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from toolkit.reporting.metrics import MetricsFile, read_metrics
from toolkit.reporting.tensorboard import TensorBoard
from toolkit.reporting.versions import installed_version
from toolkit.reporting.wandb import WandB


def test_lines_are_json_with_step_time_and_values(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "run" / "metrics.jsonl")
    metrics.log(1, {"loss": 0.5, "lr": 1e-4})
    metrics.log(2, {"loss": float("nan"), "lr": float("inf")})
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    metrics.close()
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["loss"] == 0.5 and rows[0]["lr"] == 1e-4 and rows[0]["time"] > 1.7e9
    assert rows[1]["loss"] is None and rows[1]["lr"] is None


def test_resume_drops_later_steps_and_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "loss": 2}\n{"step": 3, "loss": 3}\n{"step": 4, "lo')
    metrics = MetricsFile(path, resumed_step=2)
    metrics.log(3, {"loss": 30})
    metrics.close()
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1), (2, 2), (3, 30)]


def test_a_run_from_the_start_begins_a_fresh_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n')
    MetricsFile(path).close()
    assert path.read_text() == ""


KILLED = """
import os, signal, sys
from pathlib import Path
from toolkit.reporting.metrics import MetricsFile
metrics = MetricsFile(Path(sys.argv[1]))
for step in range(1, 100):
    metrics.log(step, {"loss": step})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_run_leaves_all_it_logged(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=Path(__file__).parents[3], check=False)
    assert [row["step"] for row in read_metrics(path)] == list(range(1, 100))


def test_tensorboard_reads_what_was_logged_and_hides_what_was_redone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    first = TensorBoard(tmp_path / "log")
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.images(3, [tmp_path / "a.png"])
    first.close()
    second = TensorBoard(tmp_path / "log", resumed_step=2)
    second.log(3, {"loss": 30.0})
    second.close()
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_tensorboard_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.png")
    board = TensorBoard(tmp_path / "log")
    board.images(5, [tmp_path / "a.png"])
    board.close()
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    (picture,) = events.Images("samples/0")
    assert (picture.step, picture.width, picture.height) == (5, 8, 4)


def test_wandb_that_is_absent_is_said(tmp_path: Path) -> None:
    if installed_version("wandb") is not None:
        pytest.skip("wandb is installed")
    # A folder of that name, which wandb itself leaves where it ran, is no installed package.
    (tmp_path / "wandb").mkdir()
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        with pytest.raises(ValueError, match=r"pip install wandb.*use_wandb: false"):
            WandB(tmp_path, "aitk")
    finally:
        os.chdir(before)
