"""The sorted keys of a cache: each is found where it is, also when halves of keys agree or keys come twice."""

import numpy as np

from toolkit.data.cache.key_index import CacheIndex


def _keys(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.uint64).reshape(-1, 2)


def test_every_key_is_found_in_its_table_and_row() -> None:
    rng = np.random.default_rng(0)
    tables = [rng.integers(0, 2**64, (count, 2), dtype=np.uint64) for count in (100, 0, 1, 300)]
    index = CacheIndex(tables)
    assert len(index) == 401
    for number, table in enumerate(tables):
        found, rows = index.locate(table)
        assert found.tolist() == [number] * len(table) and rows.tolist() == list(range(len(table)))
    strangers = rng.integers(0, 2**64, (50, 2), dtype=np.uint64)
    assert not index.contains(strangers).any() and set(index.locate(strangers)[0].tolist()) == {-1}
    assert index.contains(np.concatenate([strangers[:1], tables[3][:1]])).tolist() == [False, True]


def test_an_empty_one_holds_nothing() -> None:
    for index in (CacheIndex(), CacheIndex([_keys()])):
        assert len(index) == 0 and index.contains(_keys((1, 1))).tolist() == [False]
        assert index.locate(_keys((1, 1)))[0].tolist() == [-1]


def test_keys_that_share_a_half_are_told_apart() -> None:
    index = CacheIndex([_keys((5, 9), (5, 1), (7, 0)), _keys((5, 4), (2**64 - 1, 3))])
    tables, rows = index.locate(_keys((5, 4), (5, 1), (5, 9), (5, 2), (7, 1), (2**64 - 1, 3), (2**64 - 1, 4), (0, 0)))
    assert tables.tolist() == [1, 0, 0, -1, -1, 1, -1, -1]
    assert [row for row, table in zip(rows.tolist(), tables.tolist(), strict=True) if table >= 0] == [0, 1, 0, 1]
    assert len(index) == 5


def test_of_a_key_in_several_tables_the_first_counts() -> None:
    index = CacheIndex([_keys((1, 1), (2, 2)), _keys((3, 3), (2, 2)), _keys((2, 2), (1, 1))])
    assert len(index) == 3
    tables, rows = index.locate(_keys((1, 1), (2, 2), (3, 3)))
    assert tables.tolist() == [0, 0, 1] and rows.tolist() == [0, 1, 0]
