"""Endless batches in plan order, fetched ahead by threads; where one stopped, the next run goes on."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Position(NamedTuple):
    """The next batch to train on: batch `index` of `epoch`."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a position for


class FetchError(RuntimeError):
    """A batch could not be fetched; says which samples it holds."""


class Loader(Generic[R]):
    """Iterates over (position after the batch, what `fetch(epoch, indices)` returned), without end.

    `fetch` runs in threads, because decoding, resizing and reading mapped files release the interpreter lock; results
    come in plan order and never depend on the number of workers (0: in the caller's thread). A start beyond the plan
    (the data set has shrunk) is the beginning of the next epoch. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        fetch: Callable[[int, list[int]], R],
        plan_for: Callable[[int], list[list[int]]],
        start: tuple[int, int] = (0, 0),
        num_workers: int = 2,
        prefetch: int = 2,
        name_of: Callable[[int], str] = str,
    ) -> None:
        self._fetch, self._plan_for, self._name_of = fetch, plan_for, name_of
        self._batches = in_order(self._run, self._tasks(Position(*start)), num_workers, prefetch)

    def __iter__(self) -> Iterator[tuple[Position, R]]:
        return self

    def __next__(self) -> tuple[Position, R]:
        return next(self._batches)

    def __enter__(self) -> "Loader[R]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads; waits for the batches being fetched, drops those that are not begun."""
        self._batches.close()

    def _tasks(self, start: Position) -> Iterator[tuple[Position, Position, list[int]]]:
        epoch, index = start
        while True:
            plan = self._plan_for(epoch)
            if not plan:
                raise ValueError(f"epoch {epoch} has no batches")
            for number in range(index, len(plan)):
                is_last = number + 1 == len(plan)
                after = Position(epoch + 1, 0) if is_last else Position(epoch, number + 1)
                yield Position(epoch, number), after, plan[number]
            epoch, index = epoch + 1, 0

    def _run(self, task: tuple[Position, Position, list[int]]) -> tuple[Position, R]:
        at, after, indices = task
        try:
            return after, self._fetch(at.epoch, indices)
        except Exception as error:  # raised again at once: whatever it is, it is told which files it is about
            names = ", ".join(self._name_of(index) for index in indices)
            raise FetchError(f"batch {at.index} of epoch {at.epoch} ({names}): {error}") from error


def in_order(work: Callable[[T], R], tasks: Iterable[T], num_workers: int, prefetch: int) -> Generator[R, None, None]:
    """`map(work, tasks)` by threads: the same results in the same order, at most `num_workers * prefetch` ahead."""
    if num_workers == 0:
        yield from map(work, tasks)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="data")
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > num_workers * prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
