"""A slider really slides: a short training of the size slider on the embedded model, measured as its benchmark does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
STEPS = 60
"""Less than a third of the example's, and less far to go; docs/sliders.md has the numbers of the whole."""
NUM_SEEDS = 16
STRENGTHS = (-2.0, 0.0, 2.0)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_slider", ROOT / "scripts" / "bench_slider.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def example(folder: Path) -> dict[str, Any]:
    """The example config, shortened."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "config/examples/slider_tiny.yaml").read_text(encoding="utf-8"))
    process = config["config"]["process"][0]
    process["training_folder"] = str(folder)
    process["train"] |= {"steps": STEPS, "lr": 3e-3, "disable_sampling": True}
    process["slider"] |= {"num_latents": 24, "guidance_strength": 0.5}
    process["sample"]["sample_steps"] = 8
    return config


def test_a_slider_of_texts_slides_and_keeps_color_and_shape(bench: Any, tmp_path: Path) -> None:
    from jobs import run_job

    run_job(example(tmp_path))
    pipeline = bench.load_pipeline("builtin:tiny-flux", tmp_path / "slider_tiny" / "slider_tiny.safetensors")
    results = bench.measure(pipeline, NUM_SEEDS, 12, bench.FIRST_SEED, STRENGTHS)
    said = "\n".join(bench.report(results))
    assert bench.of_means(results) == 1, said
    assert bench.of_seeds(results) >= 0.9, said
    # that of the whole training is 0.93: what is still wrong here are mostly the smallest shapes
    assert bench.right_share(results) >= 0.7, said


def test_ranks_of_equal_values_are_their_mean(bench: Any) -> None:
    assert bench.ranks([3, 1, 3, 7]).tolist() == [1.5, 0, 1.5, 3]
    assert bench.spearman([1, 2, 3], [2, 4, 9]) == pytest.approx(1)
    assert bench.spearman([1, 2, 3], [9, 4, 2]) == pytest.approx(-1)


def test_the_extent_is_that_of_the_drawn_shape(bench: Any) -> None:
    from toolkit.assets import shapes

    for half, shape in ((12, "circle"), (21, "square")):
        canvas = shapes.blank(shapes.PALETTE["blue"])
        shapes.paint(canvas, shape, (32, 32), half, shapes.PALETTE["red"])
        assert bench.measure_extent(canvas.reduce(shapes.SCALE)) == pytest.approx(2 * half, abs=2)
    assert bench.measure_extent(Image.new("RGB", (64, 64), "red")) == 0
