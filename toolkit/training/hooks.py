"""What happens after a step: logging, validation, saving. Each is a small object that the loop calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

import torch
from safetensors import SafetensorError
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.context import Context
from toolkit.models.conditions import Row, collate
from toolkit.models.family import Family
from toolkit.run_folder import RunFolder
from toolkit.training.batch import Batch
from toolkit.training.losses import LossReader, NonFinite
from toolkit.training.noise import draw
from toolkit.training.path import Path
from toolkit.training.state import TrainState
from toolkit.training.step import sample_means

Log = Callable[[int, Mapping[str, float]], None]


def averaged(state: TrainState) -> AbstractContextManager[None]:
    """The averaged weights in the model, where there is an average."""
    return state.ema.applied(state.params) if state.ema else nullcontext()


class LogLoss:
    """Shows every step, and logs the mean loss of every `every` steps."""

    def __init__(self, reader: LossReader, show: Callable[[int, float, float], None], log: Log, every: int) -> None:
        self.reader, self.show, self.log, self.every = reader, show, log, every
        self._losses: list[float] = []

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Read the losses that the device has finished; wait for them only when a line is due."""
        self.reader.push(state.step, loss)
        is_due = state.step % self.every == 0
        values = self.reader.read(wait=is_due)
        self._losses += [value for _, value in values]
        rate = state.optimizer.param_groups[0]["lr"]
        rate = math.nan if rate is None else rate  # Adafactor may find its own
        if values:
            self.show(state.step, values[-1][1], rate)
        if is_due and self._losses:
            mean = sum(self._losses) / len(self._losses)
            self.log(state.step, {"loss/loss": mean, "learning_rate": rate, "epoch": state.position.epoch})
            self._losses.clear()


class Validate:
    """The loss on held-out pictures at fixed noise levels and fixed noise."""

    def __init__(
        self,
        family: Family,
        path: Path,
        context: Context,
        rows: Sequence[tuple[Tensor, Row]],
        sigmas: Sequence[float],
        log: Log,
        every: int,
    ) -> None:
        self.family, self.path, self.context = family, path, context
        self.sigmas, self.log, self.every = tuple(sigmas), log, every
        self._batches = [self._fixed(index, latents, row) for index, (latents, row) in enumerate(rows)]

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Measure when it is due."""
        if state.step % self.every == 0:
            with averaged(state):
                self.log(state.step, self.measure())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean loss over all pictures, in all and per noise level."""
        was_training = self.family.denoiser.training
        self.family.denoiser.eval()
        losses = {sigma: self._loss(sigma) for sigma in self.sigmas}
        self.family.denoiser.train(was_training)
        values = {f"validation/loss_{sigma:g}": float(loss) for sigma, loss in losses.items()}
        return {"validation/loss": sum(values.values()) / len(values), **values}

    def _loss(self, sigma: float) -> Tensor:
        losses = []
        for batch in self._batches:
            t = torch.full((1,), sigma, dtype=torch.float64)
            with self.context.autocast():
                guess = self.family.predict(self.path.noisy(batch.latents, batch.noise, t), t, batch.cond)
            losses.append(sample_means((guess.float() - self.path.wanted(batch.latents, batch.noise, t)).square()))
        return torch.cat(losses).mean()

    def _fixed(self, index: int, latents: Tensor, row: Row) -> Batch:
        u, noise = draw([index], latents.shape)
        return Batch(latents[None], collate([row]), torch.ones(1), u, noise).to(self.context.device)


class Save:
    """Writes weights and state, and prunes old weights."""

    def __init__(
        self,
        folder: RunFolder,
        reader: LossReader,
        dtype: torch.dtype,
        make_header: Callable[[TrainState], Mapping[str, str]],
        every: int,
        keep: int,
        total: int,
        suffix: str = "",
    ) -> None:
        self.folder, self.reader, self.dtype, self.make_header = folder, reader, dtype, make_header
        self.every, self.keep, self.total, self.suffix = every, keep, total, suffix
        self._last_saved = -1

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Save when it is due; the end of the run has a save of its own."""
        if self.every and state.step % self.every == 0 and state.step < self.total:
            self.save(state)

    def save(self, state: TrainState, final: bool = False) -> None:
        """Write the weights, then the state, then the manifest. Raises NonFinite instead of saving NaN."""
        if state.step == self._last_saved and not final:
            return
        self.reader.read(wait=True)
        if not all(torch.stack([param.isfinite().all() for param in state.params])):
            raise NonFinite(state.step, "a weight became NaN or infinite")
        target = self.folder.weights_path(None if final else state.step, self.suffix, state.network.suffix)
        with averaged(state), atomic_path(target) as temporary:
            state.network.write(temporary, self.dtype, self.make_header(state))
        if state.step != self._last_saved:
            state.save(self.folder.state_path)
        self.folder.record(state.step, [target], final)
        self.folder.prune(self.keep)
        self._last_saved = state.step

    @contextmanager
    def rescuing(self, state: TrainState) -> Iterator[None]:
        """Save what was trained so far if the block fails between two updates, then let the error go on."""
        try:
            yield
        except NonFinite:
            raise  # these weights give NaN again; the state saved before them is of more use
        except (RuntimeError, MemoryError, OSError):
            if state.is_whole:
                with suppress(OSError, RuntimeError, SafetensorError):  # the disk may be what failed
                    self.save(state)
            raise
