"""Every choice of optimizer, schedule, precision and quantization trains, saves and goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs import Stopped
from toolkit.registry import get_registry
from toolkit.training.schedules import SHAPES

OPTIMIZERS = sorted(get_registry().entries("optimizers"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_trains_and_goes_on_exactly(training: Any, signal_at: Any, identical: Any, name: str) -> None:
    options = {"train": {"steps": 2, "optimizer": name}}
    if name.endswith("8bit"):
        # only tensors from 4096 weights on get 8-bit state
        options |= {"network": {"linear": 256}}
    whole = training("whole", **options).run()
    parts = training("parts", **options)
    with signal_at("step 1/2"), pytest.raises(Stopped):
        parts.run()
    begin = parts.weights(1)
    parts.run()
    end = parts.weights()
    assert identical(end, whole.weights())
    assert not identical(begin, end)


def test_an_optimizer_that_finds_its_rate_is_shown_without_one(training: Any) -> None:
    params = {"relative_step": True, "scale_parameter": False}
    run = training(train={"optimizer": "adafactor", "optimizer_params": params}).run()
    assert [row["learning_rate"] for row in run.metrics()] == [None] * 4


@pytest.mark.parametrize("name", SHAPES)
def test_each_schedule_trains(training: Any, name: str) -> None:
    run = training(train={"steps": 5, "lr": 0.01, "lr_scheduler": name}).run()
    rates = [row["learning_rate"] for row in run.metrics()]
    assert len(rates) == 5 and all(0 <= rate <= 0.01 for rate in rates)
    assert (len(set(rates)) == 1) == name.startswith("constant")


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_trains_fp32_weights_and_saves_half(training: Any, dtype: str) -> None:
    """The losses stay close to those of fp32, but for the rounding."""
    exact = training("exact").run()
    run = training("run", train={"dtype": dtype}, save={"dtype": dtype}, sample={"prompts": ["a cat"], "width": 64,
        "height": 64, "sample_steps": 1}).run()  # fmt: skip
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    assert {tensor.dtype for tensor in run.weights().values()} == {kinds[dtype]}
    assert {tensor.dtype for tensor in run.state()["params"].values()} == {torch.float32}
    losses = [[row["loss/loss"] for row in each.metrics()] for each in (run, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02) and losses[0] != losses[1]
    assert len(list((run.path / "samples").glob("*.jpg"))) == 2


def test_save_dtype_does_not_touch_the_training(training: Any, identical: Any) -> None:
    half, full = training("half", save={"dtype": "float16"}).run(), training("full").run()
    assert identical(half.state(), full.state())
    for name, tensor in half.weights().items():
        assert torch.equal(tensor, full.weights()[name].half())


@pytest.mark.parametrize("qtype", ["qint8", "qfloat8"])
def test_a_quantized_model_trains_and_samples(training: Any, qtype: str) -> None:
    exact = training("exact").run()
    sample = {"prompts": ["a cat"], "width": 64, "height": 64, "sample_steps": 1}
    run = training("run", model={"quantize": True, "qtype": qtype, "qtype_te": qtype}, sample=sample).run()
    losses = [[row["loss/loss"] for row in each.metrics()] for each in (run, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] != losses[1]
    assert run.weights().keys() == exact.weights().keys()


def test_gradient_checkpointing_gives_the_same_weights(training: Any) -> None:
    plain = training("plain").run().weights()
    checkpointed = training("checkpointed", train={"gradient_checkpointing": True}).run().weights()
    for name, tensor in plain.items():
        assert (checkpointed[name] - tensor).abs().max() < 1e-6
