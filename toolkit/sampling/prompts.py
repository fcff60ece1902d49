"""What is sampled: the section's prompts or samples[], with inline flags, as a list of complete `SamplePrompt`s."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.sampling.prompt_flags import read_flags

_log = logging.getLogger(__name__)
_SMALLEST = 64


@dataclass(frozen=True)
class SamplePrompt:
    """One picture to make, the same at every step of the run."""

    prompt: str
    negative: str = ""
    width: int = 512
    height: int = 512
    seed: int = 0
    steps: int = 20
    guidance: float = 7.0
    network_multiplier: float = 1.0
    index: int = 0
    """Place in the config's list, counted with the items that are left out."""
    guidance_rescale: float = 0.0
    num_frames: int = 1
    fps: int = 16
    images: tuple[str, ...] = ()
    """Files of the reference or control pictures."""

    @property
    def is_video(self) -> bool:
        """Whether it is more than a picture."""
        return self.num_frames > 1


def read_prompts(
    *,
    prompts: Sequence[str | None] = (),
    samples: Sequence[Mapping[str, Any]] | None = None,
    neg: str | bool | None = None,
    seed: int = 0,
    walk_seed: bool = False,
    width: int = 512,
    height: int = 512,
    guidance_scale: float = 7.0,
    sample_steps: int = 20,
    network_multiplier: float = 1.0,
    guidance_rescale: float = 0.0,
    num_frames: int = 1,
    fps: int = 16,
    trigger: str | None = None,
    name: str = "",
    multiple: int = 8,
    frame_stride: int = 0,
    rng: random.Random | None = None,
    notice: Callable[[str], None] = _log.warning,
) -> list[SamplePrompt]:
    """Return the pictures that the keys of a sample section ask for.

    An inline flag wins over a key of its item, and that over the section's. Seed -1 is drawn here, once, so that the
    pictures of all steps compare. ValueError for a flag without a usable value.
    """
    rng = rng or random.SystemRandom()
    section = {
        "neg": neg,
        "width": width,
        "height": height,
        "guidance_scale": guidance_scale,
        "sample_steps": sample_steps,
        "network_multiplier": network_multiplier,
        "guidance_rescale": guidance_rescale,
        "num_frames": num_frames,
        "fps": fps,
    }
    sides = Sides(multiple, frame_stride)
    first_seed = rng.getrandbits(32) if seed == -1 else seed
    found = []
    for index, item in enumerate(samples if samples else [{"prompt": prompt} for prompt in prompts]):
        if item.get("prompt") is None:
            continue
        where = f"sample prompt {index + 1}"
        text, flags = read_flags(str(item["prompt"]), where, notice)
        own = {key: value for key, value in item.items() if value is not None}
        merged = {**section, "seed": first_seed + index * walk_seed, **own, **flags}
        found.append(_sample_prompt(text, merged, index, trigger or "", name, sides, rng, where, notice))
    return found


def _sample_prompt(
    text: str,
    values: Mapping[str, Any],
    index: int,
    trigger: str,
    name: str,
    sides: Sides,
    rng: random.Random,
    where: str,
    notice: Callable[[str], None],
) -> SamplePrompt:
    """Return the prompt with placeholders, seed and size filled in."""
    fitted, num_frames = sides.fit((values["width"], values["height"]), values["num_frames"], where, notice)
    negative = values["neg"] if isinstance(values["neg"], str) else ""
    return SamplePrompt(
        prompt=_fill(text, trigger, name),
        negative=_fill(negative, trigger, name),
        width=fitted[0],
        height=fitted[1],
        seed=rng.getrandbits(32) if values["seed"] == -1 else values["seed"],
        steps=values["sample_steps"],
        guidance=float(values["guidance_scale"]),
        network_multiplier=float(values["network_multiplier"]),
        index=index,
        guidance_rescale=float(values["guidance_rescale"]),
        num_frames=num_frames,
        fps=values["fps"],
        images=_images(values),
    )


@dataclass(frozen=True)
class Sides:
    """Which widths, heights and numbers of frames a model makes."""

    multiple: int
    frame_stride: int = 0
    """Frames come as a multiple of this and one more; 0: pictures only."""

    def fit(
        self, size: tuple[int, int], num_frames: int, where: str, notice: Callable[[str], None]
    ) -> tuple[tuple[int, int], int]:
        """The size and number of frames that are made instead of these, with a notice if they differ."""
        fitted = fit_size(*size, self.multiple)
        if fitted != size:
            least = fit_size(0, 0, self.multiple)[0]
            rules = [f"at least {least}"] if min(size) < least else []
            rules += [f"multiples of {self.multiple}"] if any(max(side, least) % self.multiple for side in size) else []
            text = f"becomes {fitted[0]}x{fitted[1]}, sides are {' and '.join(rules)} here"
            notice(f"{where}: {size[0]}x{size[1]} {text}")
        if not self.frame_stride:
            if num_frames > 1:
                notice(f"{where}: num_frames has no effect, this model makes pictures")
            return fitted, 1
        frames = max(num_frames - 1, 0) // self.frame_stride * self.frame_stride + 1
        if frames != num_frames:
            notice(f"{where}: {num_frames} frames become {frames}, a multiple of {self.frame_stride} and one more")
        return fitted, frames


def _images(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of the pictures; the first has two names."""
    paths = (values.get("ctrl_img_1") or values.get("ctrl_img"), values.get("ctrl_img_2"), values.get("ctrl_img_3"))
    return tuple(path for path in paths if path)


def fit_size(width: int, height: int, multiple: int) -> tuple[int, int]:
    """Return the sides rounded down to multiples, each at least 64 pixels (or the next multiple above)."""
    least = -(-_SMALLEST // multiple) * multiple
    return max(width // multiple * multiple, least), max(height // multiple * multiple, least)


def _fill(text: str, trigger: str, name: str) -> str:
    return text.replace("[trigger]", trigger).replace("[name]", name)
