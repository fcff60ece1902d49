"""The `sample` and `first_sample` sections of a training config, as prompts and as the hook that makes the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.context import Context
from toolkit.models.family import Family
from toolkit.reporting.loggers import Loggers
from toolkit.reporting.progress import Progress
from toolkit.run_folder import RunFolder
from toolkit.sampling.hook import SamplePictures
from toolkit.sampling.prompts import SamplePrompt, read_prompts
from toolkit.sampling.render import texts_of
from toolkit.training.feed import Feed

if TYPE_CHECKING:
    from extensions_built_in.sd_trainer.config import SdTrainer


class Pictures:
    """Which pictures the config asks for."""

    def __init__(self, config: SdTrainer, family: Family, context: Context, folder: RunFolder, name: str) -> None:
        self.config, self.family, self.context, self.folder = config, family, context, folder
        self.prompts: list[SamplePrompt] = []
        if config.sample and not config.train.disable_sampling:
            section = config.sample
            self.prompts = read_prompts(
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
                trigger=config.trigger_word,
                name=name,
                multiple=family.facts.stride * 2,
                notice=print,
            )

    @property
    def texts(self) -> list[str]:
        """Prompts to encode."""
        return texts_of(self.prompts, self.family.facts)[0]

    @property
    def negative_texts(self) -> list[str]:
        """Negative prompts to encode."""
        return texts_of(self.prompts, self.family.facts)[1]

    def wants_first(self, step: int) -> bool:
        """Whether pictures are made before the first step of this start."""
        options = self.config.train
        return options.force_first_sample or (step == 0 and not options.skip_first_sample)

    def hook(self, feed: Feed, loggers: Loggers, progress: Progress) -> SamplePictures | None:
        """The hook, or None if no picture is wanted. The feed must have encoded the texts."""
        section = self.config.sample
        if not self.prompts or section is None:
            return None

        def tell(step: int, paths: list[Path]) -> None:
            loggers.images(step, paths)
            progress.note(f"{len(paths)} pictures at step {step}: {self.folder.samples_dir}")

        return SamplePictures(
            self.family,
            self.context,
            self.prompts,
            {text: feed.text_row(text) for text in self.texts},
            {text: feed.text_row(text, negative=True) for text in self.negative_texts},
            self.folder.samples_dir,
            section.format,
            every=section.sample_every,
            start_step=section.sample_start_step,
            total=self.config.train.steps,
            tell=tell,
            title=self.folder.name,
        )
