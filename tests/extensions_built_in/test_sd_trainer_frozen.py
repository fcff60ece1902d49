"""LoRAs that help: merged into the base, active only in training, or only while sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.sampling.picture_files import list_pictures

SAMPLE = {"prompts": ["a cat"], "width": 64, "height": 64, "sample_steps": 2, "format": "png", "sample_every": 0}


@pytest.fixture
def helper(training: Any) -> str:
    """A LoRA that was trained before."""
    return str(training("helper", train={"lr": 0.1}, network={"linear": 4, "network_kwargs": {}}).run().final)


def outcome(training: Any, name: str, **model: Any) -> tuple[float, Any]:
    """Loss of the first step, and the picture before it."""
    run = training(name, train={"steps": 1}, model=model, sample=SAMPLE).run()
    first = next(file for file in list_pictures(run.path / "samples") if file.step == 0)
    return run.metrics()[0]["loss/loss"], np.asarray(Image.open(first.path)).astype(int)


def test_each_acts_where_it_should(training: Any, helper: str) -> None:
    loss, picture = outcome(training, "plain")
    assisted, same_picture = outcome(training, "assisted", assistant_lora_path=helper)
    same_loss, faster_picture = outcome(training, "faster", inference_lora_path=helper)
    merged, merged_picture = outcome(training, "merged", lora_path=helper)
    assert same_loss == loss and np.array_equal(same_picture, picture)
    assert abs(assisted - loss) > 1e-3 and np.abs(faster_picture - picture).max() > 3
    assert merged == pytest.approx(assisted, abs=1e-4) and np.abs(merged_picture - faster_picture).max() <= 1


def test_what_is_saved_is_what_was_trained(training: Any, helper: str, identical: Any) -> None:
    run = training(model={"assistant_lora_path": helper, "inference_lora_path": helper}).run()
    assert run.weights().keys() == training("plain").run().weights().keys()


def test_a_run_with_helpers_goes_on_exactly(training: Any, helper: str, signal_at: Any, identical: Any) -> None:
    from jobs import Stopped

    model = {"assistant_lora_path": helper, "inference_lora_path": helper}
    whole, parts = training("whole", model=model, sample=SAMPLE).run(), training("parts", model=model, sample=SAMPLE)
    with signal_at("step 2/4"), pytest.raises(Stopped):
        parts.run()
    parts.run()
    assert identical(parts.state(), whole.state())


def test_a_file_of_another_model_is_named(training: Any, tmp_path: Path, capsys: Any) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({f"unet.conv.lora_{end}.weight": torch.zeros(2, 2) for end in "AB"}, file)
    for key in ("lora_path", "assistant_lora_path"):
        assert training(model={key: str(file)}).from_command_line() == 2
        message = capsys.readouterr().err
        assert f"model.{key}: " in message and "unet.conv.lora_A.weight" in message
