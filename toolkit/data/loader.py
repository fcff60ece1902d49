"""Endless batches in plan order, fetched ahead by threads; where one stopped, the next run goes on."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")
B = TypeVar("B")
MOST_EMPTY = 1000
"""Epochs of a few samples with a low weight may be empty, but not so many in a row."""


class Position(NamedTuple):
    """The next batch to train on: batch `index` of `epoch`."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a position for


class FetchError(RuntimeError):
    """A batch could not be fetched; says which samples it holds."""


class Ordered(Iterator[R], Generic[T, R]):
    """`map(work, tasks)` by threads: the same results in the same order, at most `num_workers * prefetch` ahead.

    With no workers, work is done when its result is asked for. `close` ends the threads.
    """

    def __init__(self, work: Callable[[T], R], tasks: Iterable[T], num_workers: int, prefetch: int) -> None:
        self._work, self._tasks = work, iter(tasks)
        self._most = num_workers * prefetch
        self._waiting: deque[Future[R]] = deque()
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="data") if num_workers else None

    def __next__(self) -> R:
        if self._pool is None:
            return self._work(next(self._tasks))
        for task in islice(self._tasks, self._most + 1 - len(self._waiting)):
            self._waiting.append(self._pool.submit(self._work, task))
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft().result()

    @property
    def is_ready(self) -> bool:
        """Whether the next result is there already."""
        return bool(self._waiting) and self._waiting[0].done()

    def close(self) -> None:
        """Stop the threads; waits for what is begun, drops what is not."""
        self._tasks = iter(())
        self._waiting.clear()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)


class Loader(Generic[B, R]):
    """Iterates over (position after the batch, what `fetch(epoch, batch)` returned), without end.

    `fetch` runs in threads, which wait for files and for worker processes; results come in plan order and never depend
    on the number of threads (0: in the caller's). A start beyond the plan (the data set has shrunk) is the beginning of
    the next epoch. `name_of` says in an error what a batch holds. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        fetch: Callable[[int, B], R],
        plan_for: Callable[[int], Sequence[B]],
        start: tuple[int, int] = (0, 0),
        num_workers: int = 2,
        prefetch: int = 2,
        name_of: Callable[[B], str] = str,
    ) -> None:
        self._fetch, self._plan_for, self._name_of = fetch, plan_for, name_of
        self._batches = Ordered(self._run, self._tasks(Position(*start)), num_workers, prefetch)

    def __iter__(self) -> Iterator[tuple[Position, R]]:
        return self

    def __next__(self) -> tuple[Position, R]:
        return next(self._batches)

    @property
    def is_ready(self) -> bool:
        """Whether the next batch is there already."""
        return self._batches.is_ready

    def __enter__(self) -> "Loader[B, R]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; waits for the batches being fetched, drops those that are not begun."""
        self._batches.close()

    def _tasks(self, start: Position) -> Iterator[tuple[Position, Position, B]]:
        epoch, index = start
        num_empty = 0
        while True:
            plan = self._plan_for(epoch)
            num_empty = 0 if len(plan) else num_empty + 1
            if num_empty == MOST_EMPTY:
                raise ValueError(f"the epochs up to {epoch} have no batches")
            for number in range(index, len(plan)):
                is_last = number + 1 == len(plan)
                after = Position(epoch + 1, 0) if is_last else Position(epoch, number + 1)
                yield Position(epoch, number), after, plan[number]
            epoch, index = epoch + 1, 0

    def _run(self, task: tuple[Position, Position, B]) -> tuple[Position, R]:
        at, after, batch = task
        try:
            return after, self._fetch(at.epoch, batch)
        except Exception as error:  # raised again at once: whatever it is, it is told which files it is about
            raise FetchError(f"batch {at.index} of epoch {at.epoch} ({self._name_of(batch)}): {error}") from error


def in_order(work: Callable[[T], R], tasks: Iterable[T], num_workers: int, prefetch: int) -> Generator[R, None, None]:
    """The results of `Ordered`, whose threads end with the loop over them."""
    ordered = Ordered(work, tasks, num_workers, prefetch)
    try:
        yield from ordered
    finally:
        ordered.close()
