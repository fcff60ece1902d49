"""The `sample` and `first_sample` sections of a training config, as prompts and as the hooks that make the pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.sections.sample import SampleSection
from toolkit.context import Context
from toolkit.models.family import Family
from toolkit.networks.shared import is_shared
from toolkit.reporting.loggers import Loggers
from toolkit.reporting.progress import Progress
from toolkit.run_folder import RunFolder
from toolkit.sampling.encoding import Encoding
from toolkit.sampling.hook import SamplePictures
from toolkit.sampling.prompts import SamplePrompt, read_prompts
from toolkit.sampling.references import check_references
from toolkit.sampling.schedulers import make_scheduler
from toolkit.training.state import TrainState
from toolkit.training.text_rows import Prompt
from toolkit.training.texts import TextRow

if TYPE_CHECKING:
    from toolkit.trainer.config import TrainerPlugin

Around = Callable[[], AbstractContextManager[object]]


class Pictures:
    """Which pictures the config asks for, and when."""

    def __init__(self, config: TrainerPlugin, family: Family, context: Context, folder: RunFolder, name: str) -> None:
        self.config, self.family, self.context, self.folder, self.name = config, family, context, folder, name
        self.prompts = self._read(config.sample)
        self.first_prompts = self._read(config.first_sample) if config.first_sample else self.prompts
        self.during: SamplePictures | None = None
        self._first: SamplePictures | None = None
        self._encoding = Encoding(family)

    @property
    def texts(self) -> list[Prompt]:
        """What to encode: the prompts, and the negative ones that guidance takes."""
        return self._encoding.texts([*self.prompts, *self.first_prompts])

    def encode(self) -> None:
        """Encode the reference pictures as the VAE sees them."""
        self._encoding.encode_pictures([*self.prompts, *self.first_prompts])

    def prepare(self, text_row: TextRow, loggers: Loggers, progress: Progress, around: Around = nullcontext) -> None:
        """Make the hooks; pictures are made inside `around()`. The feed must have encoded the texts."""
        self.during = self._hook(self.config.sample, self.prompts, text_row, loggers, progress, around)
        first = self.config.first_sample or self.config.sample
        self._first = self._hook(first, self.first_prompts, text_row, loggers, progress, around)

    def make_first(self, state: TrainState) -> None:
        """The pictures before the first step of this start, if they are wanted; those that a kill left out."""
        options = self.config.train
        # where weights are shared out over ranks, all of them would have to find that out together
        if self.during and not is_shared(state.params[0]) and self.during.is_missing(state.step):
            self.during.make(state)
        if self._first and (options.force_first_sample or (state.step == 0 and not options.skip_first_sample)):
            self._first.make(state)

    def _read(self, section: SampleSection) -> list[SamplePrompt]:
        if self.config.train.disable_sampling:
            return []
        facts = self.family.facts
        prompts = read_prompts(
            **section.prompt_keys(),
            trigger=self.config.trigger_word,
            name=self.name,
            multiple=facts.made_multiple,
            frame_stride=facts.frame_stride,
            notice=print,
        )
        make_scheduler(facts, section.sampler)  # complains now, not after hours of encoding
        return check_references(prompts, facts, print)

    def _hook(
        self,
        section: SampleSection,
        prompts: list[SamplePrompt],
        text_row: TextRow,
        loggers: Loggers,
        progress: Progress,
        around: Around,
    ) -> SamplePictures | None:
        if not prompts:
            return None

        def tell(step: int, paths: list[Path]) -> None:
            loggers.images(step, paths)
            progress.note(f"{len(paths)} sample{'s' * (len(paths) != 1)} at step {step}: {self.folder.samples_dir}")

        return SamplePictures(
            self.family,
            self.context,
            prompts,
            lambda prompt: self._encoding.request(prompt, text_row),
            self.folder.samples_dir,
            section.format,
            every=section.sample_every,
            start_step=section.sample_start_step,
            total=self.config.train.steps,
            tell=tell,
            title=self.folder.name,
            sampler=section.sampler,
            around=around,
        )
