"""Log lines, saves, and the rescue of a run that fails."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.run_folder import RunFolder
from toolkit.training.hooks import LogLoss, Save, learning_rates
from toolkit.training.losses import LossReader, NonFinite
from toolkit.training.state import TrainState, read_state

Line = Callable[..., TrainState]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", "run")


def save_hook(folder: RunFolder, reader: LossReader | None = None, **options: Any) -> Save:
    values = {"every": 2, "keep": 2, "total": 7, **options}
    return Save(
        folder, reader or LossReader(CPU), torch.float16, lambda state, network: {"at": str(state.step)}, **values
    )


def steps(hook: Any, state: TrainState, count: int) -> None:
    for _ in range(count):
        state.step += 1
        hook.after_step(state, torch.tensor(0.5))


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.path.glob("*.safetensors"))


def test_a_line_is_logged_every_n_steps_and_at_the_end_and_every_step_is_shown(line: Line) -> None:
    shown: list[int] = []
    logged: list[tuple[int, Mapping[str, float]]] = []
    hook = LogLoss(
        LossReader(CPU), lambda step, *_: shown.append(step), lambda step, row: logged.append((step, row)), 2, 5
    )
    state = line(lr=0.25)
    for step, loss in enumerate([1.0, 3.0, 5.0, 6.0, 100.0], start=1):
        state.step = step
        hook.after_step(state, torch.tensor(loss))
    assert shown == [1, 2, 3, 4, 5]
    wanted = {"learning_rate": 0.25, "epoch": 0}
    assert logged == [(step, {"loss/loss": mean, **wanted}) for step, mean in ((2, 2.0), (4, 5.5), (5, 100.0))]


def test_groups_with_a_rate_of_their_own_are_logged_by_name(line: Line) -> None:
    state = line(lr=0.25)
    state.optimizer.param_groups[0]["name"] = "unet"
    for name, rate in (("text_encoder", 0.5), ("text_encoder_2", 0.25), ("", 0.125)):
        state.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate, "name": name})
    assert learning_rates(state.optimizer) == {"learning_rate": 0.25, "learning_rate/text_encoder": 0.5}


def test_an_optimizer_without_a_rate_is_logged_as_nan(line: Line) -> None:
    rates: list[float] = []
    state = line()
    state.optimizer.param_groups[0]["lr"] = None
    hook = LogLoss(LossReader(CPU), lambda *_: None, lambda step, row: rates.append(row["learning_rate"]), 1, 1)
    steps(hook, state, 1)
    assert math.isnan(rates[0])


def test_saves_come_when_due_and_old_ones_go(line: Line, folder: RunFolder) -> None:
    state, hook = line(), save_hook(folder)
    steps(hook, state, 7)
    assert names(folder) == ["run_000000004.safetensors", "run_000000006.safetensors"]
    assert read_state(folder.state_path)["step"] == 6
    hook.save(state, final=True)
    assert names(folder)[0] == "run.safetensors" and read_state(folder.state_path)["step"] == 7
    listed = json.loads((folder.path / "checkpoints.json").read_text())["checkpoints"]
    assert [(entry["step"], entry["final"]) for entry in listed] == [(4, False), (6, False), (7, True)]


def test_a_step_is_saved_once(line: Line, folder: RunFolder) -> None:
    state, hook = line(), save_hook(folder)
    steps(hook, state, 2)
    before = folder.state_path.stat().st_mtime_ns
    hook.save(state)
    assert folder.state_path.stat().st_mtime_ns == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(line: Line, folder: RunFolder, value: float) -> None:
    state = line(3)
    with torch.no_grad():
        state.params[0][1] = value
    with pytest.raises(NonFinite, match="a weight became NaN or infinite at step 2"):
        steps(save_hook(folder), state, 2)
    assert names(folder) == [] and not folder.state_path.exists()


def test_a_loss_that_is_read_late_still_keeps_a_save_from_happening(line: Line, folder: RunFolder) -> None:
    reader = LossReader(CPU)
    reader.push(1, torch.tensor(math.nan))
    with pytest.raises(NonFinite, match="the loss became nan at step 1"):
        steps(save_hook(folder, reader), line(), 2)
    assert names(folder) == []


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), OSError(28, "full"), MemoryError()])
def test_a_failing_run_saves_what_it_has(line: Line, folder: RunFolder, error: Exception) -> None:
    state = line()
    state.step = 3
    with pytest.raises(type(error)), save_hook(folder).rescuing(state):
        raise error
    assert names(folder) == ["run_000000003.safetensors"]


def test_no_rescue_of_half_an_update_or_of_weights_that_give_nan(line: Line, folder: RunFolder) -> None:
    state = line()
    with pytest.raises(NonFinite), save_hook(folder).rescuing(state):
        raise NonFinite(4, "the loss became nan")
    state.is_whole = False
    with pytest.raises(RuntimeError), save_hook(folder).rescuing(state):
        raise RuntimeError("in the middle of an update")
    assert not folder.path.exists()
