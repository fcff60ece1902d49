"""The `sample` and `first_sample` sections of a training config, as prompts and as the hooks that make the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.config.sections.sample import SampleSection
from toolkit.context import Context
from toolkit.models.family import Family
from toolkit.reporting.loggers import Loggers
from toolkit.reporting.progress import Progress
from toolkit.run_folder import RunFolder
from toolkit.sampling.hook import SamplePictures
from toolkit.sampling.prompts import SamplePrompt, read_prompts
from toolkit.sampling.render import texts_of
from toolkit.training.feed import Feed
from toolkit.training.state import TrainState

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer


class Pictures:
    """Which pictures the config asks for, and when."""

    def __init__(self, config: SdTrainer, family: Family, context: Context, folder: RunFolder, name: str) -> None:
        self.config, self.family, self.context, self.folder, self.name = config, family, context, folder, name
        self.prompts = self._read(config.sample)
        self.first_prompts = self._read(config.first_sample) if config.first_sample else self.prompts
        self.during: SamplePictures | None = None
        self._first: SamplePictures | None = None

    @property
    def texts(self) -> list[str]:
        """Prompts to encode."""
        return texts_of([*self.prompts, *self.first_prompts], self.family.facts)[0]

    @property
    def negative_texts(self) -> list[str]:
        """Negative prompts to encode."""
        return texts_of([*self.prompts, *self.first_prompts], self.family.facts)[1]

    def prepare(self, feed: Feed, loggers: Loggers, progress: Progress) -> None:
        """Make the hooks. The feed must have encoded the texts."""
        self.during = self._hook(self.config.sample, self.prompts, feed, loggers, progress)
        first = self.config.first_sample or self.config.sample
        self._first = self._hook(first, self.first_prompts, feed, loggers, progress)

    def make_first(self, state: TrainState) -> None:
        """The pictures before the first step of this start, if they are wanted."""
        options = self.config.train
        if self._first and (options.force_first_sample or (state.step == 0 and not options.skip_first_sample)):
            self._first.make(state)

    def _read(self, section: SampleSection) -> list[SamplePrompt]:
        if self.config.train.disable_sampling:
            return []
        return read_prompts(
            prompts=section.prompts,
            samples=[item.model_dump(exclude_none=True) for item in section.samples],
            neg=section.neg,
            seed=section.seed,
            walk_seed=section.walk_seed,
            width=section.width,
            height=section.height,
            guidance_scale=section.guidance_scale,
            sample_steps=section.sample_steps,
            network_multiplier=section.network_multiplier,
            trigger=self.config.trigger_word,
            name=self.name,
            multiple=self.family.facts.stride * 2,
            notice=print,
        )

    def _hook(
        self, section: SampleSection, prompts: list[SamplePrompt], feed: Feed, loggers: Loggers, progress: Progress
    ) -> SamplePictures | None:
        if not prompts:
            return None

        def tell(step: int, paths: list[Path]) -> None:
            loggers.images(step, paths)
            progress.note(f"{len(paths)} pictures at step {step}: {self.folder.samples_dir}")

        positive, negative = texts_of(prompts, self.family.facts)
        return SamplePictures(
            self.family,
            self.context,
            prompts,
            {text: feed.text_row(text) for text in positive},
            {text: feed.text_row(text, negative=True) for text in negative},
            self.folder.samples_dir,
            section.format,
            every=section.sample_every,
            start_step=section.sample_start_step,
            total=self.config.train.steps,
            tell=tell,
            title=self.folder.name,
        )
