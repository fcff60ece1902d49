"""Training trains: the loss falls, validation compares, the average is right, schedules are followed, files load."""

from __future__ import annotations

from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch


def test_a_full_fine_tune_learns_and_its_folder_loads(training: Any, shapes_folder: Path, capsys: Any) -> None:
    from diffusers import FluxTransformer2DModel

    run = training(
        network=None,
        datasets=[{"folder_path": str(shapes_folder), "resolution": 32, "cache_latents": True}],
        train={"steps": 60, "batch_size": 8, "lr": 3e-3, "ema_config": {"use_ema": True, "ema_decay": 0.8}},
        save={"dtype": "fp32", "save_every": 30, "save_format": "diffusers"},
    ).run()
    losses = [row["loss/loss"] for row in run.metrics()]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])

    saved = FluxTransformer2DModel.from_pretrained(run.path / "run" / "transformer").state_dict()
    state = run.state()
    names = [name.removeprefix("transformer.") for name in state["params"]]
    average = dict(zip(names, state["ema"]["shadow"], strict=True))
    assert saved.keys() == average.keys() and all(torch.equal(saved[name], average[name]) for name in saved)
    assert (run.path / "run_000000030" / "transformer" / "config.json").exists()
    assert (run.path / "run" / "aitk_meta.yaml").exists()
    assert "full fine-tune of transformer" in capsys.readouterr().out


@pytest.mark.parametrize("save_format", ["diffusers", "safetensors"])
def test_a_full_fine_tune_goes_on_exactly_and_from_what_it_saved(
    training: Any, signal_at: Any, identical: Any, save_format: str
) -> None:
    from jobs import Stopped

    save = {"dtype": "fp32", "save_every": 2, "save_format": save_format}
    options = {"network": None, "train": {"steps": 3, "lr": 1e-3}, "save": save}
    whole = training("whole", **options).run()
    parts = training("parts", **options)
    with signal_at("step 2/3"), pytest.raises(Stopped):
        parts.run()
    parts.run()
    assert identical(parts.state(), whole.state())
    assert parts.final.is_file() == (save_format == "safetensors")

    (parts.path / "optimizer.pt").unlink()
    longer, before = parts.but(train={"steps": 4, "lr": 1e-12}).run().state(), whole.state()
    for name, param in longer["params"].items():
        assert (param - before["params"][name]).abs().max() < 1e-6


def held_out(folder: Path, **changes: Any) -> dict[str, Any]:
    items = [{"image_path": str(folder / "0.png"), "prompt": "a cat"}, {"image_path": str(folder / "3.png")}]
    return {"validation_items": items, "resolution": 32, "validate_every_n_steps": 2, **changes}


def validation(training: Any) -> list[dict[str, float]]:
    rows = [row for row in training.metrics() if "validation/loss" in row]
    return [{key: value for key, value in row.items() if key.startswith("validation")} for row in rows]


def test_validation_is_the_same_at_the_same_weights(training: Any, noise_folder: Path) -> None:
    config = held_out(noise_folder, validation_sigmas=[1.0, 0.5])
    frozen = {"validation_config": config, "lr": 1e-30}
    one = training("one", train=frozen).run()
    other = training("other", train=frozen, training_seed=7).run()
    trained = training("trained", train={"validation_config": config, "lr": 0.1}).run()
    first, second = validation(one)
    assert first.keys() == {"validation/loss", "validation/loss_1", "validation/loss_0.5"}
    assert first == second == validation(other)[0]
    assert first["validation/loss"] == pytest.approx((first["validation/loss_1"] + first["validation/loss_0.5"]) / 2)
    assert abs(validation(trained)[1]["validation/loss"] - first["validation/loss"]) > 1e-3


def test_validation_does_not_change_the_training(training: Any, noise_folder: Path, identical: Any) -> None:
    plain = training("plain", network={"dropout": 0.5}).run()
    checked = training("checked", network={"dropout": 0.5}, train={"validation_config": held_out(noise_folder)}).run()
    assert identical(checked.state(), plain.state())


def test_the_saved_average_is_that_of_the_steps(training: Any) -> None:
    """shadow <- d * shadow + (1 - d) * weight; the up matrices of a LoRA begin with 0."""
    plain = training("plain", train={"steps": 5}, save={"save_every": 1}).run()
    averaged = training("averaged", train={"steps": 5, "ema_config": {"use_ema": True, "ema_decay": 0.3}}).run()
    for name, saved in averaged.weights().items():
        if "lora_B" in name:
            shadow = torch.zeros_like(saved)
            for n, step in enumerate([1, 2, 3, 4, None], start=1):
                shadow = torch.lerp(shadow, plain.weights(step)[name], 1 - min(0.3, (1 + n) / (10 + n)))
            assert torch.allclose(saved, shadow, atol=1e-7)
            assert not torch.allclose(saved, plain.weights()[name], atol=1e-4)


def test_metrics_follow_the_schedule(training: Any) -> None:
    run = training(train={"lr": 0.01, "steps": 5, "lr_scheduler": "cosine"}).run()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5]
    wanted = [0.01 * (1 + cos(pi * step / 5)) / 2 for step in range(5)]
    assert [row["learning_rate"] for row in run.metrics()] == pytest.approx(wanted)
    assert all(0 < row["loss/loss"] < 10 for row in run.metrics())


def test_a_logged_loss_is_the_mean_since_the_last_one(training: Any) -> None:
    each = training("each").run().metrics()
    pairs = training("pairs", logging={"log_every": 2}).run().metrics()
    assert [row["step"] for row in pairs] == [2, 4]
    losses = [row["loss/loss"] for row in each]
    means = [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2]
    assert [row["loss/loss"] for row in pairs] == pytest.approx(means, rel=1e-6)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(3, 2), (2, 3), (4, 2)])
def test_accumulation_equals_one_big_batch(
    training: Any, tmp_path: Path, noise_folder: Path, batch_size: int, accumulation: int
) -> None:
    """Also where the last batch is short: five and six pictures make 3 + 2, 2 + 2 + 1 and 4 + 2."""
    count = 5 if batch_size < 4 else 6
    folder = tmp_path / "squares"
    folder.mkdir()
    for index in range(count):
        (folder / f"{index}.png").write_bytes((noise_folder / f"{index}.png").read_bytes())
    datasets = [{"folder_path": str(folder), "resolution": 32, "square_crop": True, "cache_latents": True}]
    options = {"steps": 4, "lr": 1e-2, "optimizer_params": {"eps": 1e-3}}
    big = training("big", datasets=datasets, train={**options, "batch_size": count}).run()
    small = training(
        "small", datasets=datasets, train={**options, "batch_size": batch_size, "gradient_accumulation": accumulation}
    ).run()
    weights = small.weights()
    for name, tensor in big.weights().items():
        assert (weights[name] - tensor).abs().max() < 1e-6, name
    losses = [[row["loss/loss"] for row in run.metrics()] for run in (small, big)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
