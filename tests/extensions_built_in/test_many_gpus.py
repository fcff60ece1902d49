"""Two real processes train the tiny FLUX together over gloo: they do what one does with twice the batch.

The processes are copies of this one, because to import what they need takes longer than they do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from forked_ranks import fork_ranks
from PIL import Image, ImageChops

import run as program
from toolkit.launch.local import run_ranks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are copied by fork")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ranks are copies of this process."""
    fork_ranks(monkeypatch, lambda command: program.start(["run", *command[2:]]))
    return monkeypatch


def together(monkeypatch: pytest.MonkeyPatch, *jobs: Sequence[Any]) -> None:
    """Run trainings one after another in two processes; a job is a training, or one for each of them."""

    def main(command: Sequence[str]) -> int:
        from jobs import run_job

        for job in jobs:
            try:
                run_job(job[int(os.environ["RANK"]) % len(job)].config)
            except ValueError as error:
                print("refused:", error)
        return 0

    fork_ranks(monkeypatch, main)
    assert run_ranks([], 2, os.environ) == 0


def losses(run: Any) -> list[float]:
    return [row["loss/loss"] for row in run.metrics() if "loss/loss" in row]


def names(run: Any) -> list[str]:
    """The files of a run, those of pictures without their time."""
    return sorted(name.partition("__")[2] or name for name in run.files())


def pictures(run: Any) -> list[Path]:
    """The samples of a run, by step and number."""
    return sorted((run.path / "samples").glob("*__*"), key=lambda path: path.name.partition("__")[2])


def apart(one: Path, other: Path) -> int:
    """The largest difference of two pictures, in levels."""
    with Image.open(one) as mine, Image.open(other) as theirs:
        return max(high for _, high in ImageChops.difference(mine, theirs).getextrema())


def far(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of two sets of weights."""
    assert one.keys() == other.keys()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


def num_rows(folder: Path) -> tuple[int, int]:
    """How many rows the files of a cache hold, and how many different ones."""
    from toolkit.data.cache.rows import RowCache
    from toolkit.data.cache.shard import SUFFIX, open_shard

    shards = [open_shard(path) for path in folder.rglob(f"*{SUFFIX}")]
    return sum(len(shard.keys) for shard in shards), len(RowCache(folder))


def test_two_processes_equal_one_with_twice_the_batch(
    training: Any, tmp_path: Path, identical: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AITK_CACHE", raising=False)
    here = {"training_folder": str(tmp_path / "alone")}
    long = {"steps": 6, "disable_sampling": True}

    def full(name: str, batch_size: int, steps: int = 6, **changes: Any) -> Any:
        """Trains the model itself, with an average gradient that is cut."""
        train = {"steps": steps, "batch_size": batch_size, "lr": 1e-3, "gradient_checkpointing": True, **changes}
        sample = {"prompts": ["a cat"], "width": 32, "height": 32, "sample_steps": 1, "sample_every": 3}
        train |= {"max_grad_norm": 0.05, "skip_first_sample": True}
        return training(name, network=None, train=train, sample=sample, save={"dtype": "fp32", "save_every": 3})

    dream = {"instance_prompt": "a red cat", "class_prompt": "a cat", "num_class_images": 3, "class_resolution": 64}
    dream |= {"sample_steps": 1, "guidance_scale": 1}
    sample = {"prompts": ["a cat", "a dog", "two"], "width": 32, "height": 32, "sample_steps": 1, "sample_every": 4}
    lora, shared, half = (
        training("lora", train={"steps": 6}, sample=sample),
        full("shared", 2, fsdp=True),
        full("half", 2, 3, fsdp=True),
    )
    odd = training("odd", train=long)
    few = odd.but(datasets=[{**odd.process["datasets"][0], "folder_path": str(_copied(odd, tmp_path / "few"))}])
    together(
        monkeypatch,
        [lora],
        [shared],
        [half],
        [full("half", 2, fsdp=True)],
        [full("part", 2, 3, fsdp=True)],
        [training("dream", dreambooth=dream, train=long)],
        [odd, few],
    )
    out = capfd.readouterr().out
    assert out.count("2 processes take each step together: 2 samples each, 4 in all") == 7, out
    assert "refused: the processes of this run see different pictures" in out and "view tensor" not in out

    # a network: one all-reduce of its gradients
    alone = training("lora", train={"steps": 6, "batch_size": 4}, sample=sample).but(**here).run()
    assert losses(lora) == pytest.approx(losses(alone), rel=1e-5)
    assert far(lora.weights(), alone.weights()) < 1e-5
    # pictures were made by both, as one makes them
    assert names(lora) == names(alone) and len(pictures(alone)) == 3 * 3
    assert max(map(apart, pictures(lora)[:3], pictures(alone)[:3])) <= 1
    # latents were encoded by both, each once, and there is no file of another rank
    assert num_rows(Path(lora.process["training_folder"], ".aitk_cache", "latents")) == (6 + 3, 6 + 3)

    # the model itself, its weights shared out: saved whole, and a picture of it
    whole = full("shared", 4).but(**here).run()
    assert losses(shared) == pytest.approx(losses(whole), rel=1e-5)
    assert far(shared.weights(), whole.weights()) < 1e-5 and far(shared.weights(3), whole.weights(3)) < 1e-5
    assert names(shared) == names(whole)
    # stopped in the middle and continued: the same to the last bit, also by one process as far as numbers are exact
    assert identical(full("half", 2).weights(), shared.weights())
    part = full("part", 4).run()
    assert losses(part)[3:] == pytest.approx(losses(whole)[3:], rel=1e-5)
    assert far(part.weights(), whole.weights()) < 1e-5

    dreamt = training("dream")
    assert len(list(Path(lora.process["training_folder"]).rglob(".aitk_cache/class_images/*/class_*.png"))) == 3
    assert len(losses(dreamt)) == 6


def _copied(run: Any, target: Path) -> Path:
    """A folder with fewer of the pictures."""
    target.mkdir()
    for path in sorted(Path(run.process["datasets"][0]["folder_path"]).glob("[0-3].*")):
        (target / path.name).write_bytes(path.read_bytes())
    return target


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int, rank: int | None) -> None:
    """Once this step is done, a signal goes to a rank, or from the terminal to what has launched it."""
    from toolkit.training import loop

    update = loop.update

    def stopping(state: Any, max_grad_norm: float | None) -> None:
        update(state, max_grad_norm)
        if state.step == step and os.environ.get("RANK") == str(rank or 0):
            os.kill(os.getppid() if rank is None else os.getpid(), number)

    monkeypatch.setattr(loop, "update", stopping)


def test_ctrl_c_stops_both_and_one_process_goes_on_there(training: Any, capfd: Any, forked: pytest.MonkeyPatch) -> None:
    run = training("stopped", train={"steps": 5000, "disable_sampling": True})
    with forked.context() as patch:
        stop_at(patch, 1, signal.SIGINT, rank=None)
        assert run.from_command_line("--gpus", "2") == 130
    said = capfd.readouterr().err
    assert said.count("stopping: finishing this step and saving") == 1
    assert said.count("job 'stopped' was stopped: saved at step") == 1 and "rank" not in said
    state = run.state()
    step, (epoch, index) = state["step"], state["position"]
    assert 2 <= step < 5000 and state["course"] == [(0, 0, [4])]
    again = run.but(train={"steps": step + 1}).run()
    assert again.state()["step"] == step + 1
    out = capfd.readouterr().out
    assert f"resumed exactly at step {step}" in out
    expected = [(0, 0, [4]), (epoch, index, [2])]
    assert again.state()["course"] == expected
    assert (f"what is left of epoch {epoch} is put in order anew" in out) == (index > 0)


def test_a_killed_process_ends_both_and_two_go_on_exactly(
    training: Any, capfd: Any, forked: pytest.MonkeyPatch, identical: Any
) -> None:
    options = {"train": {"steps": 6, "disable_sampling": True}, "save": {"dtype": "fp32", "save_every": 2}}
    whole = training("whole", **options)
    assert whole.from_command_line("--gpus", "2") == 0
    # the first saves the step that it has done when it loses the other
    for rank, saved in ((0, 2), (1, 4)):
        run = training(f"killed{rank}", **options)
        capfd.readouterr()
        with forked.context() as patch:
            stop_at(patch, 3, signal.SIGKILL, rank)
            assert run.from_command_line("--gpus", "2") == 1
        assert capfd.readouterr().err.strip() == f"rank {rank} was killed by signal 9"
        assert run.state()["step"] == saved and not [name for name in run.files() if "tmp" in name]
        assert run.from_command_line("--gpus", "2") == 0
        assert f"resumed exactly at step {saved}" in capfd.readouterr().out
        assert identical(run.weights(), whole.weights()) and losses(run) == losses(whole)
