"""Many small looks at a disk: side by side where it is slow to answer, one after another where it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, thread_time
from typing import Any, TypeVar

T = TypeVar("T")
SLOW_S = 50e-6
"""A disk that is waited for longer than this per file is waited for by many threads at once."""
FEW = 200
"""So many files are looked at before the disk is judged."""


class Threads:
    """Runs calls in threads as soon as the disk proves slow; on a fast one threads would only hinder each other."""

    def __init__(self, num_workers: int) -> None:
        self._pool = ThreadPoolExecutor(num_workers)
        self._waited_s, self._num_files = 0.0, 0

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def is_slow(self) -> bool:
        """Whether threads are used."""
        return self._waited_s > SLOW_S * max(FEW, self._num_files)

    def map(self, work: Callable[..., T], calls: Sequence[tuple[Any, ...]], size_of: Callable[[T], int]) -> list[T]:
        """The results of `work` for the arguments of all calls; `size_of` a result is the files it looked at."""
        results: list[T] = []
        for number, call in enumerate(calls):
            if self.is_slow:
                return [*results, *self._pool.map(lambda call: work(*call), calls[number:])]
            start_s, start_busy_s = perf_counter(), thread_time()
            results.append(work(*call))
            self._waited_s += perf_counter() - start_s - (thread_time() - start_busy_s)
            self._num_files += size_of(results[-1])
        return results
