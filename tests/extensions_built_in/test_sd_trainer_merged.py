"""`merge_network_on_save`: a whole model beside the network of every save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.config.errors import ConfigError

MERGING = {"merge_network_on_save": True, "merge_network_on_save_strength": 0.5}


def test_every_save_has_a_whole_model_with_the_network_merged_in(training: Any, tiny_flux: Path) -> None:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    run = training(train=MERGING, save={"save_every": 1, "max_step_saves_to_keep": 1}).run()
    folders = {path.name for path in run.path.iterdir() if path.is_dir()}
    assert folders == {"run_000000003_merged", "run_merged"}
    merged = FluxPipeline.from_pretrained(run.path / "run_merged").transformer.state_dict()
    for name, weight in FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer").state_dict().items():
        stem = f"transformer.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in run.weights():
            a, b = (run.weights()[f"{stem}.lora_{letter}.weight"] for letter in "AB")
            assert (b @ a).abs().max() > 0
            weight = weight + 0.5 * b @ a
        torch.testing.assert_close(merged[name], weight)


def test_it_is_merged_beside_an_embedding_too(training: Any) -> None:
    run = training(embedding={"trigger": "mochi", "init_words": "red"}, train={**MERGING, "steps": 1}).run()
    assert {path.suffix and path.name for path in run.path.glob("*.safetensors")} == {
        "mochi.safetensors",
        "run_LoRA.safetensors",
    }
    assert (run.path / "run_merged" / "model_index.json").is_file()


def test_without_a_network_there_is_nothing_to_merge(training: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.merge_network_on_save: there is no network to merge"):
        training(train=MERGING, network=None).run()
    with pytest.raises(ConfigError, match=r"cannot be combined with model\.unet_path"):
        training(train=MERGING, model={"unet_path": "x.safetensors"}).run()
