"""Where a run computes: devices that this machine lacks are refused, precision is by name."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from toolkit.context import DTYPES, Context, make_context


@pytest.mark.parametrize("name", DTYPES)
def test_precision_is_by_name(name: str):
    context = make_context("cpu", name, 7)
    wanted = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[name]
    assert (context.device.type, context.dtype, context.seed) == ("cpu", wanted, 7)
    assert (context.rank, context.world) == (0, 1)


def test_auto_takes_the_best_device():
    found = make_context("auto", "fp32", 1).device.type
    if torch.cuda.is_available():
        assert found == "cuda"
    else:
        assert found == ("mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_said():
    with pytest.raises(ValueError, match=r"device: cuda:0 was asked for, .* sees 0 CUDA devices; use `device: auto`"):
        make_context("cuda:0", "bf16", 1)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")
def test_a_missing_apple_gpu_is_said():
    with pytest.raises(ValueError, match="sees no Apple GPU"):
        make_context("mps", "bf16", 1)


def test_autocast_computes_in_the_precision_of_the_run(cpu: Context):
    layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with cpu.autocast():
        assert layer(x).dtype == torch.float32
    with dataclasses.replace(cpu, dtype=torch.bfloat16).autocast():
        assert layer(x).dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32


def test_a_context_does_not_change(cpu: Context):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cpu.seed = 1  # type: ignore[misc]
