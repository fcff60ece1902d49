"""Work that the ranks of a run share out: each does its part by itself, and the first hears what has become of it.

News go through the store of the run, so that no rank waits for another before all is done.
"""

from __future__ import annotations

import pickle
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from toolkit.context import Context
from toolkit.training.stop import StopFlag, Stopping

T = TypeVar("T")
News = TypeVar("News")
POLL_S = 0.05


class Shares(Generic[T, News]):
    """Things to do, of which each rank has every world-th, and what the ranks tell the first of those they have done.

    Alone, a rank has all of them, and hears itself at once.
    """

    def __init__(self, context: Context, todo: Sequence[T]) -> None:
        """`todo` is the same on all ranks, which meet here."""
        self._context = context
        self.total = len(todo)
        self.own = list(todo[context.rank :: context.world])
        self.num_done = 0
        """Of the own things; after `rest`, of all."""
        self._name = context.of_first(lambda: f"aitk/shares/{secrets.token_hex(4)}")
        self._num_told = [0] * context.world
        self._untold: list[News] = []

    def tell(self, count: int, news: News) -> list[News]:
        """So many more of the own things are done; gives the first rank what it has not heard, the others nothing."""
        self.num_done += count
        if self._context.store is None or self._context.is_first:
            self._untold.append(news)
        else:
            # its stub knows text only
            self._context.store.set(self._key(self._context.rank), pickle.dumps(news))  # type: ignore[arg-type]
            self._num_told[self._context.rank] += 1
        return self._heard()

    def rest(self) -> Iterator[News]:
        """What the others tell while they work on; ends on all ranks when all of them have asked for it."""
        store, ended = self._context.store, f"{self._name}/ended"
        if store is not None and store.add(ended, 1) and self._context.is_first:
            while store.add(ended, 0) < self._context.world:
                yield from self._heard()
                time.sleep(POLL_S)
        self.num_done = sum(self._context.gather(self.num_done))
        yield from self._heard()

    def in_batches(
        self: Shares[T, int], batches: Iterable[Sequence[T]], do: Callable[[Sequence[T]], None], stop: StopFlag
    ) -> Iterator[int]:
        """Do batches of the own things until asked to stop, then wait for the others; gives how many more are done.

        One that `do` leaves in the middle, by `stop.check`, is not done.
        """
        for batch in batches:
            try:
                stop.check()
                do(batch)
            except Stopping:
                break
            yield from self.tell(len(batch), len(batch))
        yield from self.rest()

    def _heard(self) -> list[News]:
        heard, self._untold = self._untold, []
        store = self._context.store if self._context.is_first else None
        if store is not None:
            for rank in range(1, self._context.world):
                while store.check([key := self._key(rank)]):
                    heard.append(pickle.loads(store.get(key)))
                    store.delete_key(key)
                    self._num_told[rank] += 1
        return heard

    def _key(self, rank: int) -> str:
        """Where the next news of a rank are."""
        return f"{self._name}/{rank}/{self._num_told[rank]}"
