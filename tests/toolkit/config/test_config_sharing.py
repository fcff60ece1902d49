"""`train.fsdp`: what it cannot be combined with is refused, at the key that is to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs import get_job
from toolkit.config import ConfigError


def config(folder: Path, fsdp: Any = True, **changes: Any) -> dict[str, Any]:
    train = {"fsdp": fsdp, "optimizer": "adamw", "dtype": "bf16", **changes.pop("train", {})}
    process = {
        "type": "sd_trainer",
        "training_folder": str(folder),
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "datasets": [{"folder_path": str(folder)}],
        "train": train,
        **changes,
    }
    return {"job": "extension", "config": {"name": "run", "process": [process]}}


@pytest.mark.parametrize("fsdp", [True, False, "auto"])
def test_a_full_fine_tune_may_be_shared_out(tmp_path: Path, fsdp: Any) -> None:
    (process,) = get_job(config(tmp_path, fsdp)).processes
    assert process.train.fsdp is fsdp if isinstance(fsdp, bool) else process.train.fsdp == fsdp  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"network": {"type": "lora"}}, "train.fsdp"),
        ({"train": {"optimizer": "prodigy", "lr": 1}}, "train.optimizer"),
        ({"train": {"dtype": "fp16"}}, "train.dtype"),
        ({"train": {"ema_config": {"use_ema": True}}}, "train.ema_config"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .*"):
        get_job(config(tmp_path, **changes))
    get_job(config(tmp_path, "auto", **changes))
