"""The slider without pictures: `type: slider`. Texts, latents that the model makes, and the loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sliders.anchors import Anchors
from extensions_built_in.sliders.pool import Pool, make_group
from extensions_built_in.sliders.scenes import scenes_of
from extensions_built_in.sliders.steps import BOTH, Direction, slide_losses
from jobs import Stopped
from toolkit.reporting.progress import bar
from toolkit.trainer.noise_rules import make_draws
from toolkit.trainer.session import Session, open_session
from toolkit.training.batch import Batch
from toolkit.training.step import take_shot
from toolkit.training.text_rows import TextRows

if TYPE_CHECKING:
    from extensions_built_in.sliders.config import TextSlider
    from jobs import Job


class TextSliderProcess:
    """Trains a network whose strength slides between the two ends of a direction of texts."""

    def __init__(self, config: TextSlider, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        with open_session(self.config, self.job) as session:
            check_texts_suffice(session)
            if session.is_done():
                return
            rows = text_rows(session)
            pool = make_pool(self.config, session, rows)
            anchors = Anchors(self.config.slider.anchors, rows)
            problems: list[str] = []
            rows.encode([*pool.prompts, *anchors.prompts, *session.pictures.texts], bar, problems)
            session.pictures.encode()
            print(*problems, sep="\n", end="\n" if problems else "", flush=True)

            state = session.load()
            with state.network.scaled(0), session.frozen.sampling():
                pool.fill()
            stopped = session.train(
                lambda state: pool.batches(state.position, self.config.train.batch_size),
                lambda batch, step: self.losses(session, anchors, batch, step),
                rows.get,
                [],
            )
        if stopped:
            raise Stopped(stopped)

    def losses(self, session: Session, anchors: Anchors, batch: Batch, step: int) -> Iterator[Tensor]:
        """The losses of a step: both directions, or the one whose turn it is."""
        section, objective = self.config.slider, session.aims.at(step)
        signs = BOTH if section.batch_full_slide else BOTH[step % 2 :][:1]
        shot = take_shot(session.family, batch, objective)
        batch = shot.batch
        direction = Direction(
            batch.cond, batch.others["positive"], batch.others["negative"], section.guidance_strength, batch.strength
        )
        network = session.state.network
        yield from slide_losses(session.family, network, objective, [(shot, signs)], direction, anchors.of(batch))


def check_texts_suffice(session: Session) -> None:
    """Raise ValueError for a model that makes pictures from reference pictures only."""
    if session.family.facts.needs_references:
        raise ValueError(
            f"type: {session.config.type}: this model makes pictures from reference pictures, which a slider of texts "
            "does not have; train with the model that makes pictures from texts alone"
        )


def text_rows(session: Session) -> TextRows:
    """The rows of texts, in the cache of the run."""
    return TextRows(session.family, session.context, session.row_cache("text"), session.config.model.encoding)


def make_pool(config: TextSlider, session: Session, rows: TextRows) -> Pool:
    """The latents to make: for every target and size a share of them."""
    section, seed = config.slider, config.training_seed
    lines, num_groups = section.lines, len(section.targets) * len(section.resolutions)
    count = max(-(-section.num_latents // num_groups), config.train.batch_size)
    sample = config.sample.model_copy(update={"sample_steps": section.latent_steps or config.sample.sample_steps})
    groups = [
        make_group(
            scenes_of(target, lines, seed), size, count, seed, sample, session.family, target.multiplier, target.weight
        )
        for target in section.targets
        for size in section.resolutions
    ]
    model = config.model.model_dump_json()
    return Pool(groups, session.family, session.context, rows, model, config.sample.sampler, make_draws(config.train))
