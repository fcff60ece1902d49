"""The state file: what it holds, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.data.loader import Position
from toolkit.training.ema import Ema
from toolkit.training.state import StateError, TrainState, load_optimizer, read_state

Line = Callable[..., TrainState]


def trained(state: TrainState, steps: int = 2) -> TrainState:
    for _ in range(steps):
        state.params[0].grad = torch.ones_like(state.params[0])
        state.optimizer.step()
        state.step += 1
    return state


def test_a_restored_state_goes_on_like_the_saved_one(line: Line, tmp_path: Path) -> None:
    one = trained(line(3, torch.optim.AdamW, lr=0.1))
    one.ema, one.position = Ema(one.params, 0.9), Position(4, 2)
    one.ema.update(one.params)
    one.save(tmp_path / "optimizer.pt")
    other = line(3, torch.optim.AdamW, lr=0.1)
    other.ema = Ema(other.params, 0.9)
    other.restore(read_state(tmp_path / "optimizer.pt"))
    assert (other.step, other.position, other.ema.num_updates) == (2, Position(4, 2), 1)
    assert torch.equal(other.ema.shadow[0], one.ema.shadow[0])
    assert torch.equal(trained(one).params[0], trained(other).params[0])


def test_random_numbers_of_torch_go_on(line: Line, tmp_path: Path) -> None:
    torch.manual_seed(5)
    line().save(tmp_path / "optimizer.pt")
    wanted = torch.rand(4)
    torch.manual_seed(6)
    line().restore(read_state(tmp_path / "optimizer.pt"))
    assert torch.equal(torch.rand(4), wanted)


def test_a_new_average_begins_with_the_restored_weights(line: Line, tmp_path: Path) -> None:
    trained(line()).save(tmp_path / "optimizer.pt")
    state = line()
    state.ema = Ema(state.params, 0.9)
    state.restore(read_state(tmp_path / "optimizer.pt"))
    assert state.ema.shadow[0].item() == state.params[0].item() == -2.0


@pytest.mark.parametrize(
    ("size", "optimizer", "reason"),
    [(2, torch.optim.SGD, "another network"), (1, torch.optim.AdamW, "another optimizer, SGD")],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(
    line: Line, tmp_path: Path, size: int, optimizer: Any, reason: str
) -> None:
    trained(line()).save(tmp_path / "optimizer.pt")
    state = line(size, optimizer)
    with pytest.raises(StateError, match=reason):
        state.restore(read_state(tmp_path / "optimizer.pt"))
    assert state.step == 0 and not state.params[0].any()


def test_options_come_from_the_config_and_moments_from_the_file(line: Line) -> None:
    saved = trained(line(1, torch.optim.AdamW, lr=0.1)).optimizer.state_dict()
    saved["param_groups"][0]["d"] = 0.5
    state = line(1, torch.optim.AdamW, lr=0.3)
    state.optimizer.param_groups[0]["weight_decay"] = 0.7
    load_optimizer(state.optimizer, saved)
    (group,) = state.optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["d"]) == (0.3, 0.7, 0.5)
    assert state.optimizer.state[state.params[0]]["step"] == 2


def damage(content: bytes, kind: str) -> bytes:
    middle = content.index(b"\x00\x00\x80?" * 100)
    return {
        "empty": b"",
        "text": b"<html>not found</html>",
        "no end": content[: len(content) // 2],
        "one bit": content[:middle] + b"\x01" + content[middle + 1 :],
        "garbage in front": b"\xff" * 40 + content[40:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "no end", "one bit", "garbage in front"])
def test_damage_is_found(line: Line, tmp_path: Path, kind: str) -> None:
    state = line(1000)
    torch.nn.init.ones_(state.params[0])
    path = tmp_path / "optimizer.pt"
    state.save(path)
    path.write_bytes(damage(path.read_bytes(), kind))
    with pytest.raises(StateError, match="it is damaged"):
        read_state(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.pt")
    with pytest.raises(StateError, match="not written by this version of aitk"):
        read_state(tmp_path / "optimizer.pt")
