"""Records in memory, and hashes of contents."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from toolkit.data.frames import Clip
from toolkit.data.records import ListedRecords, Record, as_numbers, digest_of


def hashed(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


@pytest.fixture
def records(tmp_path: Path) -> ListedRecords:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    return ListedRecords(
        [
            Record(path, "a", 4, 3),
            Record(path, "b", 5, 6, part=(2, 3)),
            Record(path, "c", 7, 8, clip=Clip(2.0, 12.0), known_digest=b"k" * 16),
            Record(tmp_path / "gone", "d", 1, 1),
        ]
    )


def test_columns(records: ListedRecords) -> None:
    assert records.widths.tolist() == [4, 5, 7, 1] and records.heights.tolist() == [3, 6, 8, 1]
    assert np.array_equal(records.clips, [[np.nan] * 2, [np.nan] * 2, [2, 12], [np.nan] * 2], equal_nan=True)
    assert ListedRecords([]).clips.shape == (0, 2) and ListedRecords([]).digests().shape == (0, 2)


def test_some_of_them(records: ListedRecords) -> None:
    some = records.chosen(np.array([2, 0]))
    assert list(some) == [records[2], records[0]] and some.widths.tolist() == [7, 4]


def test_hashes_of_files_and_of_parts(records: ListedRecords) -> None:
    expected = [hashed(b"0123456789"), hashed(b"234"), b"k" * 16, bytes(16)]
    assert np.array_equal(records.digests(), as_numbers(expected))
    assert np.array_equal(records.digests(np.array([3, 1])), as_numbers([expected[3], expected[1]]))
    assert records[1].digest == expected[1] and records[2].digest == expected[2]
    assert digest_of(records[0].path, (0, 99)) == expected[0]
    with pytest.raises(FileNotFoundError):
        _ = records[3].digest


def test_numbers_are_the_bytes_of_a_hash() -> None:
    digests = [bytes(range(16)), bytes(range(16, 32))]
    numbers = as_numbers(digests)
    assert numbers.dtype == np.uint64 and [row.astype("<u8").tobytes() for row in numbers] == digests
