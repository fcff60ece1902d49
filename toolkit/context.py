"""Where a run computes: device, precision, rank and seed, built once and passed on. Only this file knows accelerate."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch

from toolkit.launch.environment import lacks_gpus

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long the ranks of a run wait for one of them in a step; it may be saving, or hang."""
WORK = timedelta(days=7)
"""How long they wait for the first to come: it may be making pictures. If it ends, their launcher ends them."""
ARRIVALS = "aitk/arrivals"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Context:
    """The machine as one process of a run sees it."""

    device: torch.device
    dtype: torch.dtype
    """Precision of frozen weights and of the computation; what is trained stays in fp32."""
    seed: int
    rank: int = 0
    world: int = 1
    cache: Path | None = None
    """Folder for what may be used again by other runs; None: nothing is kept."""
    store: torch.distributed.Store | None = field(default=None, repr=False, compare=False)
    """Where the ranks count who is here; the first one holds it."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def alone(self) -> Context:
        """The same for what this rank does by itself."""
        return replace(self, rank=0, world=1, store=None)

    def wait(self) -> None:
        """Go on when all ranks are here, however long one of them works; an error if the first is gone."""
        if self.store is None:
            return
        # the n-th time that all meet ends with arrival n * world
        last = -(-self.store.add(ARRIVALS, 1) // self.world) * self.world
        begin = time.monotonic()
        while self.store.add(ARRIVALS, 0) < last:
            time.sleep(min(1.0, 0.002 + (time.monotonic() - begin) / 20))
        # so that the first does not leave before the others have seen it
        torch.distributed.barrier()

    def add_up(self, flat: torch.Tensor) -> None:
        """Sum a tensor over all ranks, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(flat)

    def spread(self, tensors: Sequence[torch.Tensor]) -> None:
        """Overwrite tensors by those of the first rank, in place."""
        if self.world > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0)

    def gather(self, mine: T) -> list[T]:
        """What each rank has, in the order of ranks; small things that can be pickled."""
        if self.world == 1:
            return [mine]
        self.wait()
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, mine)
        return found

    def of_first(self, make: Callable[[], T]) -> T:
        """What `make` gives on the first rank, which alone calls it; something that can be pickled."""
        if self.world == 1:
            return make()
        found: list[Any] = [make() if self.is_first else None]
        self.wait()
        torch.distributed.broadcast_object_list(found, 0)
        return found[0]  # type: ignore[no-any-return]

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in `dtype` although trained weights are fp32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def make_context(device: str, dtype: str | None, seed: int, together: bool = False) -> Context:
    """The context of this process.

    `device` is "auto", or a torch device such as "cuda:1"; one that this machine lacks is a ValueError. Without a
    `dtype` it is fp32 on the CPU, else bf16. `together`:
    with the other processes that a launcher started for the run (RANK, WORLD_SIZE, ...), each on the GPU of its
    LOCAL_RANK.
    """
    world = int(os.environ.get("WORLD_SIZE", "1")) if together else 1
    if os.environ.get("AITK_LAUNCHED") == "local":
        check_devices(device, world)
    chosen = _own_device() if device == "auto" or (device == "cuda" and world > 1) else torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {chosen} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices; use `device: auto`, or install a CUDA build of torch (see `aitk doctor`)"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device: {device} was asked for, but torch {torch.__version__} sees no Apple GPU")
    if together and device in ("auto", "cuda") and (lack := lacks_gpus(os.environ, torch.cuda.device_count())):
        raise ValueError(lack)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    precision = DTYPES[dtype or ("fp32" if chosen.type == "cpu" else "bf16")]
    if world == 1:
        return Context(chosen, precision, seed)
    from accelerate import PartialState

    store, rank, world = _open_store()
    state = PartialState(cpu=chosen.type == "cpu", timeout=PATIENCE, store=store, rank=rank, world_size=world)
    return Context(chosen, precision, seed, state.process_index, state.num_processes, store=store)


@functools.cache
def _open_store() -> tuple[torch.distributed.Store, int, int]:
    """The store of this run, once, with rank and world; waits until the first rank has opened it."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=WORK))
    store.set_timeout(PATIENCE)
    return store, rank, world


def check_devices(device: str, count: int) -> None:
    """ValueError if `count` processes of this machine cannot have a device each; the CPU has room for any number."""
    if count == 1 or device == "cpu":
        return
    if device.startswith("cuda:"):
        raise ValueError(f"device: {device} is one GPU, but {count} processes train; set device: auto")
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus and count > num_gpus:
        raise ValueError(f"launch.gpus: {count} GPUs were asked for, but torch sees {num_gpus} here")
    if not num_gpus and (device == "mps" or (device == "auto" and torch.backends.mps.is_available())):
        raise ValueError(f"launch.gpus: an Apple GPU is one, but {count} were asked for; set launch.gpus: 1")


def _own_device() -> torch.device:
    if torch.cuda.is_available():
        # where each task of a cluster sees its own GPU only, that is number 0
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
