"""A checkpoint says by its model_index.json which family it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.config.plugins import ModelPlugin
from toolkit.models.recognize import Unrecognized, recognize
from toolkit.registry import get_registry


@pytest.fixture(scope="module")
def plugins() -> dict[str, type[ModelPlugin]]:
    registry = get_registry()
    return {name: registry.load("models", name) for name in registry.entries("models")}


def checkpoint(folder: Path, index: dict[str, Any], **configs: dict[str, Any]) -> str:
    """A folder with nothing but what says what it is."""
    folder.mkdir(exist_ok=True)
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for part, config in configs.items():
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


EXPERT = ["diffusers", "WanTransformer3DModel"]


@pytest.mark.parametrize(
    ("index", "configs", "arch"),
    [
        ({"_class_name": "FluxPipeline"}, {}, "flux"),
        ({"_class_name": "StableDiffusionPipeline"}, {"unet": {"cross_attention_dim": 768}}, "sd1"),
        ({"_class_name": "StableDiffusionPipeline"}, {"unet": {"cross_attention_dim": 1024}}, "sd2"),
        ({"_class_name": "StableDiffusionXLPipeline"}, {}, "sdxl"),
        ({"_class_name": "PixArtSigmaPipeline"}, {}, "pixart_sigma"),
        ({"_class_name": "WanPipeline", "transformer_2": [None, None]}, {}, "wan21"),
        ({"_class_name": "WanPipeline", "transformer_2": EXPERT}, {}, "wan22_14b"),
        ({"_class_name": "WanPipeline", "expand_timesteps": True}, {}, "wan22_5b"),
        ({"_class_name": "WanImageToVideoPipeline", "transformer_2": EXPERT}, {}, "wan22_14b_i2v"),
        ({"_class_name": "Flux2KleinPipeline"}, {"transformer": {"num_attention_heads": 32}}, "flux2_klein_9b"),
    ],
)
def test_a_folder(plugins: Any, tmp_path: Path, index: Any, configs: Any, arch: str) -> None:
    assert recognize(checkpoint(tmp_path / "model", index, **configs), plugins) == arch


def test_the_embedded_model_and_the_usual_names_need_no_network(plugins: Any) -> None:
    assert recognize("builtin:tiny-flux", plugins) == "flux"
    assert recognize("Wan-AI/Wan2.2-TI2V-5B-Diffusers", plugins) == "wan22_5b"


def test_what_does_not_say_it(plugins: Any, tmp_path: Path) -> None:
    with pytest.raises(Unrecognized, match="is made for UnheardPipeline, which belongs to no family here"):
        recognize(checkpoint(tmp_path / "model", {"_class_name": "UnheardPipeline"}), plugins)
    (tmp_path / "one.safetensors").touch()
    with pytest.raises(Unrecognized, match="is a single file"):
        recognize(str(tmp_path / "one.safetensors"), plugins)
    with pytest.raises(Unrecognized, match=r"has no model_index\.json"):
        recognize(str(tmp_path), plugins)


def test_families_are_told_apart(plugins: Any) -> None:
    marks: dict[str, type] = {}
    for plugin in plugins.values():
        own = vars(plugin).get("recognized_by")
        if own:
            assert marks.setdefault(json.dumps(own, sort_keys=True), plugin) is plugin
    assert len(marks) > 40
