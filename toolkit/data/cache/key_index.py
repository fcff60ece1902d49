"""Which shard holds a key, and in which row: the keys of all shards, sorted. It costs 20 bytes per key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toolkit.data.cache.keys import HALF


class CacheIndex:
    """The keys of several tables. Of a key that is in several, the first table's row counts."""

    def __init__(self, tables: Sequence[np.ndarray] = ()) -> None:
        keys = np.concatenate([np.empty((0, 2), HALF), *tables])
        assert len(keys) < 2**32
        order = np.argsort(keys[:, 0], kind="stable")
        first = keys[order, 0]
        if np.any(first[1:] == first[:-1]):
            # keys that come twice, or two that share a half: stable as well, so that the first table stays in front
            order = np.lexsort((keys[:, 1], keys[:, 0]))
            order = order[np.r_[True, np.any(keys[order[1:]] != keys[order[:-1]], axis=1)]]
            first = keys[order, 0]
        self._first, self._second = first, keys[order, 1]
        self._rows = order.astype(np.uint32)
        self._starts = np.cumsum([0, *map(len, tables)])

    def __len__(self) -> int:
        return len(self._rows)

    def contains(self, keys: np.ndarray) -> np.ndarray:
        """Which of keys [n, 2] are there, bool [n]."""
        is_there: np.ndarray = self._find(keys) >= 0
        return is_there

    def locate(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The table of each of keys [n, 2], or -1, and the row there."""
        found = self._find(keys)
        if not len(self):
            return found, found
        rows = self._rows[found]
        tables = self._starts.searchsorted(rows, side="right") - 1
        rows = rows - self._starts[tables]
        tables[found < 0] = -1
        return tables, rows

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Where keys are in the sorted ones, or -1."""
        if not len(self):
            return np.full(len(keys), -1)
        first, second = keys[:, 0], keys[:, 1]
        at = np.minimum(self._first.searchsorted(first), len(self) - 1)
        is_near = self._first[at] == first
        is_found = is_near & (self._second[at] == second)
        if is_found.all():
            return at
        # behind the first key with this half there may be others with the same one
        for row in np.flatnonzero(is_near & ~is_found):
            end = self._first.searchsorted(first[row], side="right")
            matches = np.flatnonzero(self._second[at[row] : end] == second[row])
            if len(matches):
                at[row] += matches[0]
                is_found[row] = True
        return np.where(is_found, at, -1)
