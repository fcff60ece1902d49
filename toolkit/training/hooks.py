"""What happens after a step: logging, validation, saving. Each is a small object that the loop calls."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.context import Context
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.models.family import Family
from toolkit.networks.network import Network
from toolkit.networks.shared import own_part
from toolkit.run_folder import RunFolder, is_complete
from toolkit.training.batch import Batch
from toolkit.training.draws import draw
from toolkit.training.losses import LossReader, NonFinite
from toolkit.training.path import Path
from toolkit.training.resting import averaged, resting
from toolkit.training.state import TrainState
from toolkit.training.step import errors_at

Log = Callable[[int, Mapping[str, float]], None]


class LogLoss:
    """Shows every step, and logs the mean loss of every `every` steps, and that of those left at the end."""

    def __init__(
        self, reader: LossReader, show: Callable[[int, float, float], None], log: Log, every: int, total: int
    ) -> None:
        self.reader, self.show, self.log, self.every, self.total = reader, show, log, every, total
        self._losses: list[float] = []

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Read the losses that the device has finished; wait for them only when a line is due."""
        self.reader.push(state.step, loss)
        is_due = state.step % self.every == 0 or state.step == self.total
        values = self.reader.read(wait=is_due)
        self._losses += [value for _, value in values]
        rates = learning_rates(state.optimizer)
        if values:
            self.show(state.step, values[-1][1], rates["learning_rate"])
        if is_due and self._losses:
            mean = sum(self._losses) / len(self._losses)
            self.log(state.step, {"loss/loss": mean, **rates, "epoch": state.position.epoch})
            self._losses.clear()


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The rate of the first group, and of each group that has a name and another rate; NaN: the optimizer's secret."""
    groups = [(group.get("name", ""), group["lr"]) for group in optimizer.param_groups]
    first = groups[0][1]
    others = {f"learning_rate/{name}": rate for name, rate in groups if name and rate != first}
    rates = {"learning_rate": first, **others}
    return {name: math.nan if rate is None else rate for name, rate in rates.items()}


class Validate:
    """The loss on held-out pictures at fixed noise levels and fixed noise."""

    def __init__(
        self,
        family: Family,
        path: Path,
        context: Context,
        samples: Sequence[tuple[Tensor, Callable[[], Row]]],
        sigmas: Sequence[float],
        log: Log,
        every: int,
    ) -> None:
        self.family, self.path, self.context = family, path, context
        self.sigmas, self.log, self.every = tuple(sigmas), log, every
        self._samples = [(self._fixed(index, latents), row_of) for index, (latents, row_of) in enumerate(samples)]

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Measure when it is due."""
        if state.step % self.every == 0:
            with resting(self.family, state):
                self.log(state.step, self.measure())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean loss over all pictures, in all and per noise level."""
        device = self.context.device
        batches = [replace(b, cond=collate([row_of()]).to(device, torch.float32)) for b, row_of in self._samples]
        losses = {sigma: self._loss(batches, sigma) for sigma in self.sigmas}
        values = {f"validation/loss_{sigma:g}": float(loss) for sigma, loss in losses.items()}
        return {"validation/loss": sum(values.values()) / len(values), **values}

    def _loss(self, batches: Sequence[Batch], sigma: float) -> Tensor:
        t = torch.full((1,), sigma, dtype=torch.float64)
        losses = []
        for batch in batches:
            with self.context.autocast():
                losses.append(errors_at(self.family, batch, self.path, self.path.times(t)))
        return torch.cat(losses).mean()

    def _fixed(self, index: int, latents: Tensor) -> Batch:
        u, noise = draw([index], latents.shape)
        return Batch(latents[None], Conditions({}), torch.ones(1), u, noise).to(self.context.device)


class FileBeside(Protocol):
    """A further file or folder of every save, made of its weights files."""

    ending: str
    """How its name ends, suffix and extension."""

    def write(self, files: Mapping[str, FilePath], target: FilePath) -> None:
        """Write `target`, atomically, from the files of a save by suffix."""
        ...


class Save:
    """Writes weights and state, and prunes old weights."""

    def __init__(
        self,
        folder: RunFolder,
        reader: LossReader,
        dtype: torch.dtype,
        make_header: Callable[[TrainState, Network], Mapping[str, str]],
        every: int,
        keep: int,
        total: int,
        beside: FileBeside | None = None,
        timed: Callable[[float], None] | None = None,
    ) -> None:
        """`timed` is told how many seconds each save took."""
        self.folder, self.reader, self.dtype, self.make_header = folder, reader, dtype, make_header
        self.beside, self.timed = beside, timed
        self.every, self.keep, self.total = every, keep, total
        self._last_saved = -1

    def after_step(self, state: TrainState, loss: Tensor) -> None:
        """Save when it is due; the end of the run has a save of its own."""
        if self.every and state.step % self.every == 0 and state.step < self.total:
            self.save(state)

    def save(self, state: TrainState, final: bool = False) -> None:
        """Announce it, write the weights, the state, the manifest. Raises NonFinite instead of saving NaN."""
        if state.step == self._last_saved and not final:
            return
        begin = time.monotonic()
        self.reader.read(wait=True)
        if not all(torch.stack([own_part(param).isfinite().all() for param in state.params])):
            raise NonFinite(state.step, "a weight became NaN or infinite")
        number, networks = None if final else state.step, state.network.by_file()
        files = {
            suffix: self.folder.weights_path(number, suffix, network.suffix) for suffix, network in networks.items()
        }
        targets = [*files.values()]
        if self.beside is not None:
            targets.append(self.folder.weights_path(number, "", self.beside.ending))
        self.folder.begin(state.step, targets, final)
        for suffix, network in networks.items():
            self._write(state, network, files[suffix])
        if state.step != self._last_saved:
            state.save(self.folder.state_path)
        if self.beside is not None:
            self.beside.write(files, targets[-1])
        self.folder.record(state.step, targets, final)
        self.folder.prune(self.keep)
        self._last_saved = state.step
        if self.timed is not None:
            self.timed(time.monotonic() - begin)

    def mend(self, state: TrainState, tell: Callable[[str], None]) -> None:
        """Write the save of this step again if a file of it was damaged or lost while the state was not."""
        saves = [save for save in self.folder.checkpoints() if save.step == state.step and not save.final]
        broken = [name for save in saves for name in save.files if not is_complete(self.folder.path / name)]
        if broken:
            tell(f"{', '.join(broken)} of step {state.step} is damaged or missing; it is written again from the state")
            self.save(state)

    def _write(self, state: TrainState, network: Network, target: FilePath) -> None:
        with averaged(state), atomic_path(target) as temporary:
            network.write(temporary, self.dtype, self.make_header(state, network))

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
