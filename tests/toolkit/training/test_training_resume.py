"""Where a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from toolkit.run_folder import RunFolder
from toolkit.training.resume import resume
from toolkit.training.state import TrainState

Line = Callable[..., TrainState]


def saved(line: Line, folder: RunFolder, step: int, with_state: bool = False) -> None:
    """Weights of `step` hold that number."""
    state = line()
    torch.nn.init.constant_(state.params[0], float(step))
    state.step = step
    path = folder.weights_path(step)
    path.parent.mkdir(exist_ok=True)
    state.network.write(path, torch.float32, {})
    folder.record(step, [path])
    if with_state:
        state.save(folder.state_path)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", "run")


def resumed(line: Line, folder: RunFolder, start_step: int | None = None) -> tuple[TrainState, list[str]]:
    state, told = line(), []
    resume(state, folder, start_step, told.append)
    return state, told


def test_an_empty_folder_starts_at_zero(line: Line, folder: RunFolder) -> None:
    state, told = resumed(line, folder)
    assert (state.step, state.params[0].item(), told) == (0, 0.0, [])


def test_the_state_wins_over_weights_beside_it(line: Line, folder: RunFolder) -> None:
    saved(line, folder, 20, with_state=True)
    saved(line, folder, 30)
    state, told = resumed(line, folder)
    assert (state.step, state.params[0].item(), told) == (20, 20.0, ["resumed exactly at step 20"])


def test_a_state_of_step_zero_is_a_state(line: Line, folder: RunFolder) -> None:
    saved(line, folder, 0, with_state=True)
    state, told = resumed(line, folder)
    assert (state.step, told) == (0, ["resumed exactly at step 0"])


def test_without_a_state_the_highest_step_is_taken(line: Line, folder: RunFolder) -> None:
    for step in (900, 1000, 30):
        saved(line, folder, step)
    state, told = resumed(line, folder)
    assert (state.step, state.params[0].item()) == (1000, 1000.0)
    assert told == ["resumed weights of step 1000 from run_000001000.safetensors; optimizer and data order start anew"]


def test_start_step_replaces_the_number(line: Line, folder: RunFolder) -> None:
    saved(line, folder, 20, with_state=True)
    state, _ = resumed(line, folder, start_step=5)
    assert (state.step, state.params[0].item()) == (5, 20.0)


def test_a_state_that_does_not_fit_is_an_error_that_says_what_to_do(line: Line, folder: RunFolder) -> None:
    saved(line, folder, 20, with_state=True)
    with pytest.raises(ValueError, match=r"optimizer\.pt cannot be continued: .*another network.*give the run another"):
        resume(line(2), folder, None, print)
