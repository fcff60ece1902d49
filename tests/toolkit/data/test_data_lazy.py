"""Entries that are made when asked for are where those of a list would be."""

from __future__ import annotations

import pytest

from toolkit.data.lazy import Lazy


class Squares(Lazy[int]):
    def __init__(self) -> None:
        self.made: list[int] = []

    def __len__(self) -> int:
        return 5

    def at(self, place: int) -> int:
        self.made.append(place)
        return place * place


def test_it_is_indexed_as_a_list_is() -> None:
    squares, listed = Squares(), [0, 1, 4, 9, 16]
    assert list(squares) == listed and list(reversed(squares)) == listed[::-1] and 9 in squares
    assert [squares[place] for place in range(-5, 5)] == listed + listed
    for some in (slice(None), slice(1, 3), slice(-2, None), slice(None, None, -2), slice(7, 9)):
        assert squares[some] == listed[some]
    for place in (5, -6):
        with pytest.raises(IndexError):
            squares[place]


def test_only_what_is_asked_for_is_made() -> None:
    squares = Squares()
    assert squares[-1] == 16 and squares[1:3] == [1, 4] and squares.made == [4, 1, 2]
