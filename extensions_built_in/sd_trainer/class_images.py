"""The class pictures of DreamBooth: what a folder lacks is made with the base model, one batch after another.

A picture follows from its number and the settings, and its name says both. So a run that was stopped, or killed, goes
on with exactly the pictures that are missing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from jobs import Stopped
from toolkit.atomic import remove_leftovers
from toolkit.config.preflight import pictures
from toolkit.context import Context, make_context
from toolkit.data.cache.folder import cache_root
from toolkit.data.pictures.image import BrokenImage, read_size
from toolkit.data.rng import seed_for
from toolkit.models.family import Family
from toolkit.reporting.failures import explained
from toolkit.reporting.progress import bar
from toolkit.sampling.picture_files import write_picture
from toolkit.sampling.prompts import SamplePrompt, fit_size
from toolkit.sampling.studio import Studio
from toolkit.trainer.frozen import Frozen
from toolkit.training.shares import Shares
from toolkit.training.stop import StopFlag, say_at_once

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.dreambooth import ClassImages

_NAME = re.compile(r"class_(?P<digest>[0-9a-f]{16})_\d{5}\.png")


class ClassImagesProcess:
    """Fills a folder with pictures of one prompt."""

    def __init__(self, config: ClassImages) -> None:
        self.config, self.folder, self.digest = config, config.destination, config.digest

    def run(self) -> None:
        """Make what is missing; raises `Stopped` after a clean stop by the user."""
        config = self.config
        cache = cache_root(Path(config.training_folder).expanduser() / "run", os.environ)
        context = replace(make_context(config.device, config.dtype, config.seed, together=True), cache=cache)
        missing = context.of_first(self._look)
        if not missing:
            return
        with ExitStack() as stack:
            stack.enter_context(explained(self._circumstances()))
            shares: Shares[int, int] = Shares(context, missing)
            stop = stack.enter_context(StopFlag(_tell_stop))
            family = self.config.model.build(context, checkpointing=False, bypass_guidance=False)
            if family.facts.needs_references:
                raise ValueError("dreambooth: this model makes pictures from reference pictures, so it cannot make "
                                 "class pictures; put your own into class_folder, or remove class_prompt")  # fmt: skip
            self._make(shares, family, context, stack, stop)

    # -- what is there --------------------------------------------------------------------------------------------

    def _look(self) -> list[int]:
        """Tidy up, and say what is missing."""
        remove_leftovers(self.folder)
        missing, wanted = self.missing(), self.config.num_images
        if missing:
            print(f"class pictures: {len(missing)} of {wanted} are to be made in {self.folder}", flush=True)
        else:
            print(f"class pictures: all {wanted} are in {self.folder}", flush=True)
        return missing

    def missing(self) -> list[int]:
        """Numbers of the pictures to make. Pictures of other origin count, broken ones do not."""
        own, others, foreign = set(), 0, 0
        for path in pictures(self.folder):
            match = _NAME.fullmatch(path.name)
            if match and match["digest"] == self.digest:
                own.add(path.name)
            elif _has_size(path):
                others += 1
                foreign += match is not None
        if foreign:
            print(f"class pictures: {foreign} in {self.folder} were made with other settings; they count as yours")
        wanted = range(max(0, self.config.num_images - others))
        return [number for number in wanted if self.name(number) not in own or not _is_whole(self.path(number))]

    def name(self, number: int) -> str:
        """The file of a picture."""
        return f"class_{self.digest}_{number:05d}.png"

    def path(self, number: int) -> Path:
        """The place of that file."""
        return self.folder / self.name(number)

    # -- making the rest ------------------------------------------------------------------------------------------

    def _make(
        self, shares: Shares[int, int], family: Family, context: Context, stack: ExitStack, stop: StopFlag
    ) -> None:
        size, own = self.config.batch_size, shares.own
        studio = Studio(
            family, context.alone, Frozen(self.config.model, family), sampler=self.config.sampler, most=size
        )
        if own:
            studio.encode(self._prompts(own, family), bar)
            stack.enter_context(studio.opened())
        batches = (own[start : start + size] for start in range(0, len(own), size))
        with bar("making class pictures", shares.total) as advance:
            for number in shares.in_batches(batches, lambda numbers: self._make_batch(numbers, family, studio), stop):
                advance(number)
        if shares.num_done < shares.total:
            text = f"{shares.num_done} of {shares.total} class pictures are made in {self.folder}"
            raise Stopped(f"{text}; the same command makes the rest")

    def _make_batch(self, numbers: Sequence[int], family: Family, studio: Studio) -> None:
        prompts = self._prompts(numbers, family)
        for number, prompt, frames in zip(numbers, prompts, studio.make(prompts), strict=True):
            write_picture(frames[0], self.path(number), asdict(prompt))

    def _prompts(self, numbers: Sequence[int], family: Family) -> list[SamplePrompt]:
        """What to make."""
        config = self.config
        width, height = fit_size(config.resolution, config.resolution, family.facts.made_multiple)
        return [
            SamplePrompt(
                config.prompt,
                config.neg,
                width,
                height,
                seed=seed_for(config.seed, 0, str(number), "class picture"),
                steps=config.sample_steps,
                guidance=config.guidance_scale,
                guidance_rescale=config.guidance_rescale,
            )
            for number in numbers
        ]

    def _circumstances(self) -> dict[str, object]:
        """What decides which advice fits a failure."""
        return {
            "resolution": self.config.resolution,
            "quantize": self.config.model.quantize,
            "folder": str(self.folder),
            "model": self.config.model.name_or_path,
        }


def _has_size(path: Path) -> bool:
    """Whether a picture can be used, as far as its header tells."""
    try:
        read_size(path)
    except BrokenImage:
        return False
    return True


def _is_whole(path: Path) -> bool:
    """Whether the checksums of a PNG are right, from the first chunk to the last."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _tell_stop(_: str) -> None:
    say_at_once("stopping after these class pictures (ctrl+c again leaves at once)")
