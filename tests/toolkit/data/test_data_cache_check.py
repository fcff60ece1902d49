"""Damage in a file of rows is found, wherever it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from toolkit.data.cache.check import NOT_FINITE, check_shard
from toolkit.data.cache.rows import RowCache, key_for
from toolkit.data.cache.shard import ITEM_BYTES, Kind, OldShard, pack, read_header


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    cache = RowCache(tmp_path)
    for number in range(6):
        text = torch.randn(number, 4, dtype=torch.float32).bfloat16()
        cache.put(key_for(number=number), {"text": text, "mask": torch.ones(number, dtype=torch.bool)})
    cache.flush()
    (path,) = tmp_path.iterdir()
    return path


def test_a_whole_one_is_fine(shard: Path) -> None:
    assert check_shard(shard) == ""


def test_every_changed_byte_is_found(shard: Path) -> None:
    whole = shard.read_bytes()
    for position in range(8, len(whole), 7):
        changed = bytearray(whole)
        changed[position] ^= 1
        shard.write_bytes(changed)
        try:
            assert check_shard(shard), f"byte {position} of {len(whole)}"
        except OldShard:
            # the byte was the number of the version
            assert whole[position : position + 1] == b"2"


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_a_short_one_is_named(shard: Path, length: int) -> None:
    shard.write_bytes(shard.read_bytes()[:length])
    assert "damaged" in check_shard(shard)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    cache = RowCache(tmp_path)
    cache.put(key_for(number=0), {"good": torch.tensor([1.0, -3e4, 0.0], dtype=dtype)})
    cache.put(key_for(number=1), {"good": torch.ones(3, dtype=dtype), "bad": torch.ones(5, dtype=dtype)})
    cache.put(key_for(number=2), {"bad": torch.tensor([1.0, 2.0, value], dtype=dtype)})
    cache.flush()
    (path,) = tmp_path.iterdir()
    assert check_shard(path) == "1 values are not finite (first: 'bad' of row 2)"


def test_every_float_dtype_is_looked_at() -> None:
    assert set(NOT_FINITE) == {name for name in ITEM_BYTES if name[0] in "FBC" and name != "BOOL"}


@pytest.mark.parametrize("entry", [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_an_index_that_points_elsewhere_is_named(tmp_path: Path, entry: tuple[int, int]) -> None:
    key = key_for(number=0)
    packed = pack({key: [(Kind("x", "F32", (2,)), np.zeros(8, np.uint8))]}, {})
    table = next(chunk for chunk in packed.chunks if chunk.nbytes == 16 and chunk.tobytes() == bytes(16))
    table[:] = np.array(entry, "<i8").view(np.uint8)
    with (tmp_path / "a.safetensors").open("wb") as file:
        packed.write(file)
    assert check_shard(tmp_path / "a.safetensors") == "its index is damaged"


def test_other_versions_are_no_damage(tmp_path: Path) -> None:
    save_file({"a/x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"format": "aitk-rows-1"})
    with pytest.raises(OldShard):
        check_shard(tmp_path / "a.safetensors")


def test_the_header_says_who_made_the_rows(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, about={"family": "flux"})
    cache.put(key_for(number=0), {"x": torch.zeros(1)})
    cache.flush()
    (path,) = tmp_path.iterdir()
    header = read_header(path)
    assert header.about == {"family": "flux"} and header.num_rows == 1 and header.metadata["written"].startswith("20")
