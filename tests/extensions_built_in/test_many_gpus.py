"""Two real processes train the tiny FLUX together over gloo: they do what one does with twice the batch.

All trainings of one test run in the same two processes, because to import what they need takes longer than they do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from toolkit.launch.local import run_ranks

ROOT = Path(__file__).resolve().parents[2]
RANK = """
import json, os, sys
import run

run.put_root_first()
run.hide_own_datasets()
from jobs import get_job, run_job

for line in open(sys.argv[1]):
    configs = json.loads(line)
    try:
        run_job(configs[int(os.environ["RANK"]) % len(configs)])
    except ValueError as error:
        print("refused:", error)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def together(folder: Path, *jobs: Sequence[Any]) -> None:
    """Run trainings one after another in two processes; a job is a training, or one for each of them."""
    file = folder / "jobs.jsonl"
    file.write_text("".join(json.dumps([each.config for each in job]) + "\n" for job in jobs), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert run_ranks([sys.executable, "-c", RANK, str(file)], 2, env) == 0


def losses(run: Any) -> list[float]:
    return [row["loss/loss"] for row in run.metrics() if "loss/loss" in row]


def names(run: Any) -> list[str]:
    """The files of a run, those of pictures without their time."""
    return sorted(name.partition("__")[2] or name for name in run.files())


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
    lora, shared, half = training("lora", train=long), full("shared", 2, fsdp=True), full("half", 2, 3, fsdp=True)
    odd = training("odd", train=long)
    few = odd.but(datasets=[{**odd.process["datasets"][0], "folder_path": str(_copied(odd, tmp_path / "few"))}])
    together(
        tmp_path,
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
    alone = training("lora", train={**long, "batch_size": 4}).but(**here).run()
    assert losses(lora) == pytest.approx(losses(alone), rel=1e-5)
    assert far(lora.weights(), alone.weights()) < 1e-5
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


def test_ctrl_c_stops_both_and_one_process_goes_on_there(training: Any, capfd: Any) -> None:
    run = training("stopped", train={"steps": 5000, "disable_sampling": True})
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), run.written(), "--gpus", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith("step 1/"):
            process.send_signal(signal.SIGINT)
            break
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
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
