"""Measures without eyes whether a size slider of the embedded model slides: how large shapes are at each strength.

    aitk run config/examples/slider_tiny.yaml
    python scripts/bench_slider.py --lora output/slider_tiny/slider_tiny.safetensors --out bench

Over fixed seeds, each with a prompt that names no size, the LoRA acts in diffusers at strengths from -2 to 2.
`toolkit/assets/recognition.py` measures the extent of the shape and judges color, shape and background; a grid lets a
human look. Seeds whose picture is wrong without the slider are passed over (the base misses about a quarter of the
shapes whose size is not named): what is counted is whether a slider keeps right what was right.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from diffusers import FluxPipeline
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from toolkit.assets import shapes
from toolkit.assets.recognition import (
    coverage,
    figure_color,
    ground_color,
    outlined,
    pixels_of,
    recognize,
    shape_templates,
)
from toolkit.assets.template import best_of

NUM_SEEDS = 32
FIRST_SEED = 1000
BATCH = 16
STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
ROWS = 8
"""Of the grid."""


@dataclass(frozen=True)
class Result:
    """A picture at one strength, and what the judge found."""

    strength: float
    image: Image.Image
    extent: float
    """Side of the shape's bounding box in pixels; 0 for an empty picture."""
    color: bool
    shape: bool
    background: bool


@dataclass(frozen=True)
class Task:
    """What is drawn, and the seed of the noise that it begins with."""

    spec: shapes.Spec
    seed: int


def measure_extent(image: Image.Image) -> float:
    """The extent of the template that fits the figure best, whatever its shape; 0 without a figure."""
    pixels = pixels_of(image)
    ground = ground_color(pixels)
    figure = figure_color(pixels, ground)
    if figure is None:
        return 0.0
    return best_of(outlined(coverage(pixels, ground, figure)), shape_templates())[0][1].extent


def judge(image: Image.Image, spec: shapes.Spec, strength: float) -> Result:
    """Measure a picture of a prompt without a size."""
    found = recognize(image)
    right = [getattr(found, name) == getattr(spec, name) for name in ("color", "shape", "background")]
    return Result(strength, image, measure_extent(image), *right)


def load_pipeline(model: str, lora: Path) -> FluxPipeline:
    """The pipeline in full precision, with the slider as the adapter `size`."""
    folder = ROOT / "toolkit" / "assets" / "tiny-flux" if model == "builtin:tiny-flux" else Path(model)
    pipeline = FluxPipeline.from_pretrained(folder)
    # diffusers loads its own parts in full precision; those of transformers stay in half
    pipeline.text_encoder.float()
    pipeline.text_encoder_2.float()
    pipeline.load_lora_weights(lora, adapter_name="size")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def choose_tasks(pipeline: FluxPipeline, count: int, num_steps: int, seed: int) -> tuple[list[Task], list[Result]]:
    """The first seeds whose picture is right at strength 0, each with a prompt of its own, and these pictures."""
    specs = Random("bench_slider").sample(list(shapes.all_specs()), 4 * count)
    tasks = [Task(spec, seed + number) for number, spec in enumerate(specs)]
    chosen: list[tuple[Task, Result]] = []
    while len(chosen) < count and tasks:
        part, tasks = tasks[:BATCH], tasks[BATCH:]
        drawn = draw_at(pipeline, part, 0.0, num_steps)
        chosen += [(task, result) for task, result in zip(part, drawn, strict=True) if result.color and result.shape]
    return [task for task, _ in chosen[:count]], [result for _, result in chosen[:count]]


def draw_at(pipeline: FluxPipeline, tasks: Sequence[Task], strength: float, num_steps: int) -> list[Result]:
    """Draw and judge every task at a strength."""
    pipeline.set_adapters("size", strength)
    results: list[Result] = []
    for first in range(0, len(tasks), BATCH):
        part = tasks[first : first + BATCH]
        images = pipeline(
            [shapes.caption(task.spec, with_size=False) for task in part],
            height=shapes.SIDE,
            width=shapes.SIDE,
            num_inference_steps=num_steps,
            guidance_scale=1.0,
            max_sequence_length=pipeline.tokenizer_2.model_max_length,
            generator=[torch.Generator().manual_seed(task.seed) for task in part],
        ).images
        results += [judge(image, task.spec, strength) for image, task in zip(images, part, strict=True)]
    return results


def measure(
    pipeline: FluxPipeline, count: int, num_steps: int, seed: int, strengths: Sequence[float] = STRENGTHS
) -> list[Result]:
    """`count` seeds at every strength."""
    tasks, unchanged = choose_tasks(pipeline, count, num_steps, seed)
    results = []
    for strength in strengths:
        results += unchanged if strength == 0 else draw_at(pipeline, tasks, strength, num_steps)
    return results


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """The rank of each value, from 0; equal values have the mean of theirs."""
    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[which]


def of_pictures(results: Sequence[Result]) -> float:
    """Spearman's correlation of strength and extent over all pictures."""
    return spearman([result.strength for result in results], [result.extent for result in results])


def of_means(results: Sequence[Result]) -> float:
    """Spearman's correlation of strength and mean extent."""
    strengths = sorted({result.strength for result in results})
    means = [np.mean([result.extent for result in results if result.strength == strength]) for strength in strengths]
    return spearman(strengths, [float(mean) for mean in means])


def of_seeds(results: Sequence[Result]) -> float:
    """Spearman's correlation of strength and extent within each seed, the mean over all seeds."""
    strengths = sorted({result.strength for result in results})
    columns = [[result.extent for result in results if result.strength == strength] for strength in strengths]
    return float(np.mean([spearman(strengths, curve) for curve in zip(*columns, strict=True) if len(set(curve)) > 1]))


def right_share(results: Sequence[Result]) -> float:
    """The share of pictures off strength 0 with the right color and the right shape."""
    moved = [result for result in results if result.strength]
    return sum(result.color and result.shape for result in moved) / len(moved)


def report(results: Sequence[Result]) -> list[str]:
    """The table by strength, and the numbers over all."""
    lines = ["strength  extent (mean, quartiles)   color  shape  background"]
    for strength in sorted({result.strength for result in results}):
        own = [result for result in results if result.strength == strength]
        extents = [result.extent for result in own]
        low, high = np.percentile(extents, (25, 75))
        shares = [sum(getattr(result, name) for result in own) / len(own) for name in ("color", "shape", "background")]
        lines.append(f"{strength:+8.1f}  {np.mean(extents):6.1f}  ({low:.0f} to {high:.0f})" + " " * 10
                     + "  ".join(f"{share:.3f}" for share in shares))  # fmt: skip
    lines.append(f"Spearman of the means: {of_means(results):.3f}; within seeds, the mean: {of_seeds(results):.3f}")
    lines.append(f"Spearman over all pictures: {of_pictures(results):.3f}")
    lines.append(f"color and shape stay right: {right_share(results):.3f}")
    return lines


def grid(results: Sequence[Result], num_rows: int = ROWS) -> Image.Image:
    """Seeds as rows and strengths as columns, twice as large."""
    strengths, side = sorted({result.strength for result in results}), shapes.SIDE * 2
    sheet = Image.new("RGB", (len(strengths) * (side + 4), num_rows * (side + 4) + 14), (128, 128, 128))
    pen = ImageDraw.Draw(sheet)
    for column, strength in enumerate(strengths):
        own = [result for result in results if result.strength == strength]
        pen.text((column * (side + 4) + side // 2 - 8, 1), f"{strength:+g}", fill=(0, 0, 0))
        for row, result in enumerate(own[:num_rows]):
            place = (column * (side + 4) + 2, row * (side + 4) + 14)
            sheet.paste(result.image.resize((side, side), Image.Resampling.NEAREST), place)
    return sheet


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny-flux", help="pipeline folder (default: %(default)s)")
    parser.add_argument("--lora", type=Path, required=True, help="file of the slider")
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help="how many (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="sampling steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="first seed (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the grid")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipeline, started = load_pipeline(chosen.model, chosen.lora), time.monotonic()
    results = measure(pipeline, chosen.seeds, chosen.steps, chosen.seed)
    print(*report(results), f"{time.monotonic() - started:.0f} s", sep="\n", flush=True)
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        grid(results).save(chosen.out / "slider.png")


if __name__ == "__main__":
    main()
