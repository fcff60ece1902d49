"""Which pictures are made of prompts: every line, repeat and weight of a comparison as one `Order`."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.item import Item
from toolkit.data.rng import seed_for, stream
from toolkit.models.family import Family
from toolkit.sampling.prompts import SamplePrompt, read_prompts
from toolkit.sampling.references import check_references
from toolkit.trainer.usage import pipeline_class

if TYPE_CHECKING:
    from extensions_built_in.generators.config import ToFolder
    from extensions_built_in.generators.sections import GenerateSection, MakingSection
    from toolkit.config.sections.sample import SampleSection

PICTURE_SIDE, VIDEO_SIDE = 1024, 512
GUIDANCE, STEPS = 7.0, 20
REPEAT = "repeat"
"""How the heading of a column without weights begins."""


@dataclass(frozen=True)
class Order:
    """One picture or video to make."""

    prompt: SamplePrompt
    row: int = 0
    heading: str = ""
    """Where it stands on the contact sheet; "" leaves it out."""
    with_prompt: bool = False
    """Whether the prompt goes into a text file beside it."""
    stem: str = ""
    """Its name without ending, with forward slashes; "" names it by its place."""
    start: Item | None = None
    """The picture that it is made of."""
    copies: Path | None = None
    """Folder for that as the model sees it."""


def of_prompts(config: ToFolder, family: Family, base: int) -> list[Order]:
    """Repeat after repeat, in each the prompts, of each the weights."""
    making = config.generate
    lines, found = drawn_lines(making, stream(base, 0, "", "prompts")), list[Order]()

    def add(prompt: SamplePrompt, row: int, heading: str) -> None:
        found.append(Order(prompt, row, heading if making.contact_sheet else "", making.prompt_file))

    for repeat in range(making.num_repeats):
        prompts = _of_repeat(making, lines, family, base, repeat)
        for place, prompt in enumerate(prompts):
            prompt = replace(prompt, seed=prompt.seed + repeat)
            if not making.compare:
                add(prompt, place, f"{REPEAT} {repeat + 1}")
            for weight in making.compare:
                scaled = replace(prompt, network_multiplier=prompt.network_multiplier * weight)
                add(scaled, repeat * len(lines) + place, weight_heading(config, weight))
    return found


def of_samples(section: SampleSection, family: Family, base: int) -> list[Order]:
    """The prompts of a `sample` section."""
    keys = {**section.prompt_keys(), "seed": base, **sides(family)}
    prompts = read_prompts(**keys, rng=stream(base, 0, "", "seeds"), notice=print)
    checked = check_references(prompts, family.facts, print)
    return [Order(prompt, place) for place, prompt in enumerate(checked)]


def drawn_lines(making: GenerateSection, rng: random.Random) -> list[str]:
    """The prompts, with what is random about them."""
    lines = making.lines()
    if making.random_prompts:
        most = making.max_random_per_prompt
        lines = [", ".join(rng.choice(lines) for _ in range(rng.randint(1, most))) for _ in range(making.max_images)]
    return rng.sample(lines, len(lines)) if making.shuffle else list(lines)


def seed_of(making: MakingSection, base: int, place: int, repeat: int = 0) -> int:
    """The seed of a picture: the config's, or drawn for it alone."""
    if making.seed == -1:
        return seed_for(base, 0, f"{repeat} {place}", "generated picture") % 2**32
    return making.seed + place * making.walk_seed


def weight_heading(config: ToFolder, weight: float) -> str:
    """What stands above a column: the weight of the LoRA, or the multiple of the weights of several."""
    if weight == 0:
        return "without LoRAs" if len(config.loras) > 1 else "without LoRA"
    if len(config.loras) == 1:
        return f"weight {weight * config.loras[0].weight:g}"
    return f"weights x {weight:g}"


def sides(family: Family) -> dict[str, Any]:
    """Which sizes the model makes, as arguments of `read_prompts`."""
    return {"multiple": family.facts.made_multiple, "frame_stride": family.facts.frame_stride}


def read_items(
    making: MakingSection,
    items: Sequence[Mapping[str, Any]],
    family: Family,
    rng: random.Random,
    notice: Callable[[str], None] = print,
    **keys: Any,
) -> list[SamplePrompt]:
    """Prompts with the settings of a section; `keys` are further arguments of `read_prompts`."""
    return read_prompts(
        samples=items,
        neg=making.neg,
        guidance_scale=usual_guidance(making, family),
        sample_steps=usual_steps(making, family),
        guidance_rescale=making.guidance_rescale,
        rng=rng,
        notice=notice,
        **keys,
        **sides(family),
    )


def usual_guidance(making: MakingSection, family: Family) -> float:
    """The guidance of the config; of `auto`, what the pipeline of diffusers has as its default."""
    if making.guidance_scale != "auto":
        return making.guidance_scale
    names = ["true_cfg_scale", "guidance_scale"] if family.facts.guidance == "cfg" else ["guidance_scale"]
    return next((float(value) for value in _defaults(family, *names)), GUIDANCE)


def usual_steps(making: MakingSection, family: Family) -> int:
    """The same for the number of steps."""
    if making.sample_steps != "auto":
        return making.sample_steps
    return next((int(value) for value in _defaults(family, "num_inference_steps")), STEPS)


def usual_size(making: GenerateSection, family: Family) -> tuple[int, int]:
    """The size of the config; of `auto`, the square that the configuration of the denoiser or the VAE speaks of."""
    if making.width != "auto" and making.height != "auto":
        return making.width, making.height
    source, facts = family.parts.source, family.facts
    cells = source.config(family.needs["predict"][0]).get("sample_size")
    pixels = source.config("vae").get("sample_size") if "vae" in family.needs["decode"] else None
    side = cells * facts.stride if isinstance(cells, int) and cells > 1 else pixels
    if not isinstance(side, int):
        side = VIDEO_SIDE if facts.frame_stride else PICTURE_SIDE
    return side, side


def _of_repeat(making: GenerateSection, lines: list[str], family: Family, base: int, repeat: int) -> list[SamplePrompt]:
    rng = stream(base, 0, str(repeat), "sizes and seeds")
    usual = usual_size(making, family)
    items = []
    for place, line in enumerate(lines):
        width, height = rng.choice(making.size_list) if making.size_list else usual
        seed = seed_of(making, base, place, repeat)
        items.append({"prompt": line, "width": width, "height": height, "seed": seed})
    notice = _say_nothing if repeat else print
    prompts = read_items(making, items, family, rng, notice, num_frames=making.num_frames, fps=making.fps)
    return check_references(prompts, family.facts, notice)


def _defaults(family: Family, *names: str) -> Iterator[Any]:
    """Default values of arguments of the pipeline, as far as it has them."""
    pipeline = pipeline_class(family.pipeline)
    known = inspect.signature(pipeline.__call__).parameters if pipeline is not None else {}
    yield from (known[name].default for name in names if name in known and known[name].default)


def _say_nothing(_: str) -> None:
    """What is to be said about a line was said at its first repeat."""
