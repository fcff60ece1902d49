"""The model while it is not trained: averaged weights, no dropout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from toolkit.models.family import Family
from toolkit.training.state import TrainState


def averaged(state: TrainState) -> AbstractContextManager[None]:
    """The averaged weights in the model, where there is an average."""
    return state.ema.applied(state.params) if state.ema else nullcontext()


@contextmanager
def resting(family: Family, state: TrainState) -> Iterator[None]:
    """Inside the block the trained parts are in evaluation mode, with the averaged weights if there is an average."""
    names = {trainable.part for trainable in family.facts.trainables}
    modules = [family.parts[name] for name in names if family.parts.is_loaded(name)]
    modes = [module.training for module in modules]
    with averaged(state):
        try:
            for module in modules:
                module.eval()
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.train(mode)
