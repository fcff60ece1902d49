"""The concept replacer: `type: concept_replacer`. The words of a concept come to give the pictures of other words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from extensions_built_in.sliders.data import train_on_data
from extensions_built_in.sliders.steps import replaced_losses
from toolkit.data.treatment import Treatment
from toolkit.trainer.session import Session
from toolkit.training.batch import Batch
from toolkit.training.companions import Companion
from toolkit.training.step import take_shot

if TYPE_CHECKING:
    from extensions_built_in.sliders.config import ConceptReplacer
    from jobs import Job


class ConceptReplacerProcess:
    """Trains a network that answers for concepts as the model does for their replacements."""

    def __init__(self, config: ConceptReplacer, job: Job) -> None:
        self.config, self.job = config, job

    def run(self) -> None:
        """Do it all; raises `Stopped` after a clean stop by the user."""
        train_on_data(self.config, self.job, self.companions, self.losses)

    @property
    def companions(self) -> list[Companion]:
        """The captions with a concept and with its replacement; a sample draws both of the same entry."""
        entries = self.config.replacements
        words = {"concept": [each.concept for each in entries], "replacement": [each.replacement for each in entries]}
        return [around_caption(name, found) for name, found in words.items()]

    def losses(self, session: Session, batch: Batch, step: int) -> Iterator[Tensor]:
        """The loss of a step."""
        objective = session.aims.at(step)
        shot = take_shot(session.family, batch, objective)
        concept, replacement = (shot.batch.with_other(name).cond for name in ("concept", "replacement"))
        network = session.state.network
        with network.scaled(batch.strength):
            yield from replaced_losses(session.family, network, objective, shot, concept, replacement)


def around_caption(name: str, words: Sequence[str]) -> Companion:
    """Each of the words before and after a caption, as ai-toolkit puts them."""

    def texts(caption: str, treatment: Treatment) -> Sequence[str]:
        return [", ".join(part for part in (word, caption, caption and word) if part) for word in words]

    return Companion(name, texts, drawn_with="replacement")
