"""Slider processes from config to file on the tiny FLUX: what they train, stopping and going on, families."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import Stopped

TARGET = {"target_class": "a shape", "positive": "a large shape", "negative": "a small shape"}
SLIDER = {"targets": [TARGET, {**TARGET, "multiplier": 2}], "resolutions": [[64, 64]], "num_latents": 4}
SAMPLE = {"width": 64, "height": 64, "sample_steps": 2, "guidance_scale": 1}
TEXTS = {"positive_prompt": "a large shape", "negative_prompt": "a small shape", "target_class": "a shape"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, shapes_folder: Path) -> tuple[Path, Path]:
    """Four drawn pictures, and the same four mirrored and darker. Do not write to them."""
    ends = tmp_path_factory.mktemp("pos"), tmp_path_factory.mktemp("neg")
    for number in range(4):
        with Image.open(shapes_folder / f"{number}.png") as image:
            image.save(ends[0] / f"{number}.png")
            image.point(lambda level: level // 2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
                ends[1] / f"{number}.png"
            )
        shutil.copy(shapes_folder / f"{number}.txt", ends[0])
    return ends


@pytest.fixture
def sliding(training: Any, pairs: tuple[Path, Path]) -> Any:
    """Makes a training by the name of a process type."""
    folders = {"pos_folder": str(pairs[0]), "neg_folder": str(pairs[1]), "size": 64, "target_class": "a shape"}
    anchors = [{"prompt": "a mochi", "multiplier": 0.5}]
    keys: dict[str, dict[str, Any]] = {
        "slider": {"slider": {**SLIDER, "anchors": anchors}, "sample": SAMPLE},
        "concept_slider": {"slider": {**TEXTS, "anchor_class": "a mochi"}},
        "image_reference_slider_trainer": {"slider": {"datasets": [folders], "weight_jitter": 0.3}},
        "ultimate_slider_trainer": {
            "slider": {
                "datasets": [folders],
                "targets": [TARGET],
                "anchors": anchors,
                "prompt_file": ["on red", "on blue"],
            }
        },
        "concept_replacer": {
            "replacements": [{"concept": "cat", "replacement": "dog"}, {"concept": "red", "replacement": "blue"}]
        },
    }

    def make(kind: str, name: str = "run") -> Any:
        run = training(name).but(type=kind, **keys[kind])
        if kind not in ("concept_slider", "concept_replacer"):
            del run.process["datasets"]
        return run

    return make


KINDS = ("slider", "concept_slider", "image_reference_slider_trainer", "ultimate_slider_trainer", "concept_replacer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_slider_ends_like_one_in_one_go(kind: str, sliding: Any, signal_at: Any, identical: Any) -> None:
    whole = sliding(kind, "whole").run()
    assert any(float(tensor.abs().sum()) for name, tensor in whole.weights().items() if "lora_B" in name)
    parts = sliding(kind, "parts")
    with signal_at("step 2/4"), pytest.raises(Stopped, match="saved at step 2"):
        parts.run()
    # latents that have to be made anew are the same, although a network is there by then
    for folder in parts.path.rglob("slider_latents"):
        shutil.rmtree(folder)
    parts.run()
    assert identical(parts.state(), whole.state())
    assert identical(parts.weights(), whole.weights())


def test_a_model_of_reference_pictures_is_refused_before_weights_are_loaded(sliding: Any, tmp_path: Path) -> None:
    from extensions_built_in.flux.tiny import save_tiny

    folder = save_tiny(tmp_path / "fill", pipeline="FluxFillPipeline", control_channels=8)
    model = {"arch": "flux_fill", "name_or_path": str(folder)}
    with pytest.raises(ValueError, match="type: slider: this model makes pictures from reference pictures"):
        sliding("slider").but(model=model).run()


def test_the_file_acts_in_diffusers_at_negative_strength(sliding: Any, tiny_flux: Path) -> None:
    import torch
    from diffusers import FluxPipeline

    run = sliding("slider").run()
    pipeline = FluxPipeline.from_pretrained(tiny_flux)
    pipeline.load_lora_weights(run.final, adapter_name="slider")
    layer = next(module for name, module in pipeline.transformer.named_modules() if name.endswith("0.attn.to_q"))
    x = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(0))
    found = {}
    for strength in (-2.0, 0.0, 1.0):
        pipeline.set_adapters("slider", strength)
        found[strength] = layer(x).detach()
    change = found[1.0] - found[0.0]
    assert change.abs().max() > 0
    torch.testing.assert_close(found[-2.0] - found[0.0], -2 * change, rtol=1e-3, atol=1e-6)


def test_a_concept_comes_to_answer_like_its_replacement(sliding: Any) -> None:
    run = sliding("concept_replacer").but(
        replacements=[{"concept": "cat", "replacement": "two dogs, blue"}],
        network={"type": "lora", "linear": 8, "network_kwargs": {}},
        train={"steps": 80, "batch_size": 2, "lr": 1e-2},
    )
    losses = [row["loss/loss"] for row in run.run().metrics()]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
