"""The keys of `train` as the pure functions of an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.models.family import Facts
from toolkit.training.objective import Objective
from toolkit.training.path import Path
from toolkit.training.times import Times

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection


def make_objective(options: TrainSection, facts: Facts) -> Objective:
    """Times, noise, target and distance that the keys ask for."""
    times = Times(
        options.timestep_type or ("sigmoid" if facts.prediction == "flow" else "linear"),
        options.content_or_style,
        low=options.min_denoising_steps / 1000,
        high=min(1.0, (options.max_denoising_steps + 1) / 1000),
    )
    return Objective(Path.of(facts), times)
