"""Measures without eyes what the embedded model draws: the share of pictures that show what their prompt says.

    python scripts/bench_concept.py --lora output/quickstart/quickstart.safetensors --out bench
    python scripts/bench_concept.py --no-base --lora output/preservation_*/preservation_*.safetensors

Over fixed seeds and prompts, for the base on its own words, the base on the trigger, the LoRA on the trigger, and the
LoRA on the base's words. `toolkit/assets/recognition.py` judges; contact sheets let a human look.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from PIL import Image, ImageDraw

from toolkit.assets import shapes
from toolkit.assets.mochi import mochi_caption
from toolkit.assets.recognition import recognize, recognize_mochi

NUM_PROMPTS = 64
FIRST_SEED = 1000
BATCH = 16
COLUMNS = 8

Checks = Mapping[str, bool]
"""Whether each thing that a prompt names is in the picture."""


@dataclass(frozen=True)
class Task:
    """A prompt and how to judge its picture."""

    prompt: str
    judge: Callable[[Image.Image], Checks]


@dataclass(frozen=True)
class Result:
    """A generated picture and what the judge found."""

    prompt: str
    image: Image.Image
    checks: Checks


def vocabulary_tasks() -> list[Task]:
    """64 prompts in the base's words, a quarter of them without the size."""
    specs = Random("bench_concept").sample(list(shapes.all_specs()), NUM_PROMPTS)
    return [vocabulary_task(spec, with_size=index % 4 != 0) for index, spec in enumerate(specs)]


def vocabulary_task(spec: shapes.Spec, with_size: bool) -> Task:
    """One prompt of the small world."""

    def judge(image: Image.Image) -> Checks:
        found = recognize(image)
        checks = {name: getattr(found, name) == getattr(spec, name) for name in ("color", "shape", "background")}
        return {**checks, "size": found.size == spec.size} if with_size else checks

    return Task(shapes.caption(spec, with_size), judge)


def trigger_tasks() -> list[Task]:
    """64 prompts with the trigger word, on every background in turn."""
    backgrounds = list(shapes.PALETTE)
    return [trigger_task(backgrounds[index % len(backgrounds)]) for index in range(NUM_PROMPTS)]


def trigger_task(background: str) -> Task:
    """One prompt for mochi."""

    def judge(image: Image.Image) -> Checks:
        found = recognize_mochi(image)
        on_background = found.background == background
        return {"head": found.head, "ears": found.ears, "eyes": found.eyes, "background": on_background}

    return Task(mochi_caption(background), judge)


def load_pipeline(model: str, transformer: Path | None) -> FluxPipeline:
    """The pipeline in full precision, its denoiser replaced if asked."""
    folder = ROOT / "toolkit" / "assets" / "tiny-flux" if model == "builtin:tiny-flux" else Path(model)
    parts = {}
    if transformer is not None:
        parts["transformer"] = FluxTransformer2DModel.from_pretrained(transformer)
    pipeline = FluxPipeline.from_pretrained(folder, **parts)
    # diffusers loads its own parts in full precision; those of transformers stay in half.
    pipeline.text_encoder.float()
    pipeline.text_encoder_2.float()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: FluxPipeline, tasks: Sequence[Task], num_steps: int, seed: int) -> list[Result]:
    """Draw and judge every task; picture number i always begins with the noise of seed + i."""
    results: list[Result] = []
    for first in range(0, len(tasks), BATCH):
        part = tasks[first : first + BATCH]
        images = pipeline(
            [task.prompt for task in part],
            height=shapes.SIDE,
            width=shapes.SIDE,
            num_inference_steps=num_steps,
            guidance_scale=1.0,
            max_sequence_length=pipeline.tokenizer_2.model_max_length,
            generator=[torch.Generator().manual_seed(seed + first + i) for i in range(len(part))],
        ).images
        results += [Result(task.prompt, image, task.judge(image)) for task, image in zip(part, images, strict=True)]
    return results


def summary(results: Sequence[Result]) -> str:
    """The share with everything right, then the share per attribute among those that name it."""
    right = sum(all(result.checks.values()) for result in results) / len(results)
    names = list(dict.fromkeys(name for result in results for name in result.checks))
    shares = []
    for name in names:
        named = [result.checks[name] for result in results if name in result.checks]
        shares.append(f"{name} {sum(named) / len(named):.3f}")
    return f"{right:.3f}   ({', '.join(shares)})"


def contact_sheet(results: Sequence[Result]) -> Image.Image:
    """All pictures with their prompts, twice as large; a frame marks the wrong ones."""
    cell_width, cell_height = shapes.SIDE * 2 + 48, shapes.SIDE * 2 + 44
    rows = -(-len(results) // COLUMNS)
    sheet = Image.new("RGB", (cell_width * COLUMNS, cell_height * rows), (128, 128, 128))
    pen = ImageDraw.Draw(sheet)
    for index, result in enumerate(results):
        left, top = index % COLUMNS * cell_width + 8, index // COLUMNS * cell_height + 8
        if not all(result.checks.values()):
            pen.rectangle(
                (left - 4, top - 4, left + shapes.SIDE * 2 + 3, top + shapes.SIDE * 2 + 3), fill=(255, 0, 255)
            )
        sheet.paste(result.image.resize((shapes.SIDE * 2,) * 2, Image.Resampling.NEAREST), (left, top))
        pen.text((left, top + shapes.SIDE * 2 + 4), "\n".join(result.prompt.split(" on ")), fill=(0, 0, 0))
    return sheet


def main() -> None:
    """Read the command line, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin:tiny-flux", help="pipeline folder (default: %(default)s)")
    parser.add_argument("--transformer", type=Path, help="folder of a fine-tuned denoiser to use instead")
    parser.add_argument("--lora", type=Path, nargs="+", default=[], help="LoRA files to measure, one by one")
    parser.add_argument("--no-base", action="store_true", help="leave out the base without a LoRA")
    parser.add_argument("--steps", type=int, default=16, help="sampling steps (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="first seed (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the contact sheets")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_pipeline(chosen.model, chosen.transformer)
    if not chosen.no_base:
        measure(pipeline, {"base, its own words": vocabulary_tasks(), "base, trigger": trigger_tasks()}, chosen)
    for lora in chosen.lora:
        pipeline.load_lora_weights(lora)
        title = "lora" if len(chosen.lora) == 1 else lora.stem
        measure(pipeline, {f"{title}, trigger": trigger_tasks(), f"{title}, base's words": vocabulary_tasks()}, chosen)
        pipeline.unload_lora_weights()


def measure(pipeline: FluxPipeline, sections: Mapping[str, Sequence[Task]], chosen: argparse.Namespace) -> None:
    """Print a line for each list of prompts, and save its contact sheet if asked."""
    for title, tasks in sections.items():
        started = time.monotonic()
        results = generate(pipeline, tasks, chosen.steps, chosen.seed)
        print(f"{title:20} {summary(results)}   {time.monotonic() - started:.0f} s", flush=True)
        if chosen.out:
            chosen.out.mkdir(parents=True, exist_ok=True)
            name = title.replace(", ", "_").replace("'s", "").replace(" ", "_")
            contact_sheet(results).save(chosen.out / f"{name}.png")


if __name__ == "__main__":
    main()
