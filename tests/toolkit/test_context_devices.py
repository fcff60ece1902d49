"""Which devices several processes of a machine can have."""

from __future__ import annotations

import pytest
import torch

from toolkit.context import check_devices


def test_the_cpu_has_room_for_any_number() -> None:
    check_devices("cpu", 64)


def test_one_gpu_is_not_for_several_processes() -> None:
    check_devices("cuda:1", 1)
    with pytest.raises(ValueError, match="cuda:1 is one GPU, but 2 processes train; set device: auto"):
        check_devices("cuda:1", 2)


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices("auto", 2)
    for device in ("auto", "cuda"):
        with pytest.raises(ValueError, match=r"launch\.gpus: 4 GPUs were asked for, but torch sees 2 here"):
            check_devices(device, 4)


def test_an_apple_gpu_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match="an Apple GPU is one, but 2 were asked for"):
        check_devices("auto", 2)
