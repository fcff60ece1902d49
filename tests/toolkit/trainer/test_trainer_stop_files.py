"""`touch RUN/save` and `touch RUN/stop`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.trainer import stop_files
from toolkit.trainer.stop_files import StopFiles
from toolkit.training.stop import StopFlag


def test_files_ask_to_save_and_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(stop_files.time, "monotonic", lambda: clock[0])
    state: Any = object()
    loss: Any = None
    saved: list[object] = []
    (tmp_path / "stop").touch()
    stop = StopFlag()
    hook = StopFiles(tmp_path, stop, saved.append)
    hook.after_step(state, loss)
    assert not stop.requested, "what stopped an earlier start does not stop this one"
    (tmp_path / "save").touch()
    (tmp_path / "stop").touch()
    hook.after_step(state, loss)
    assert not saved and not stop.requested, "the folder is not looked at in every step"
    clock[0] += stop_files.EVERY_S
    hook.after_step(state, loss)
    assert saved == [state] and stop.requested and not (tmp_path / "save").exists()
    # the file stays, by which a job on a cluster knows that it is not to come back
    assert (tmp_path / "stop").exists()
