"""Shards copied to a local disk: once, whole, and read from there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from toolkit.data.cache import staging
from toolkit.data.cache.keys import key_for
from toolkit.data.cache.rows import RowCache
from toolkit.data.cache.staging import staged


def test_what_is_read_is_copied_once_and_read_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, local = tmp_path / "shared", tmp_path / "local"
    key = key_for(name="one")
    writer = RowCache(shared)
    writer.put(key, {"x": torch.arange(5)})
    writer.flush()
    monkeypatch.setenv(staging.VARIABLE, str(local))
    reader = RowCache(shared)
    assert not local.exists(), "only what is read is copied"
    assert reader.get(key)["x"].tolist() == [0, 1, 2, 3, 4]
    (shard,) = shared.glob("*.safetensors")
    (copy,) = local.glob("*.safetensors")
    assert copy.read_bytes() == shard.read_bytes()
    # read from the copy: the values come from there
    copy.write_bytes(
        shard.read_bytes().replace(torch.arange(5).numpy().tobytes(), torch.arange(5, 10).numpy().tobytes())
    )
    assert RowCache(shared).get(key)["x"].tolist() == [5, 6, 7, 8, 9]


def test_a_copy_that_is_not_whole_is_made_again(tmp_path: Path) -> None:
    shard, env = tmp_path / "shard.safetensors", {staging.VARIABLE: str(tmp_path / "local")}
    shard.write_bytes(b"12345678")
    copy = staged(shard, env)
    assert copy != shard and copy.read_bytes() == b"12345678"
    copy.write_bytes(b"123")
    assert staged(shard, env) == copy and copy.read_bytes() == b"12345678"


def test_without_room_or_wish_it_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "shard.safetensors"
    shard.write_bytes(b"12345678")
    assert staged(shard, {}) == shard
    (tmp_path / "file").touch()
    assert staged(shard, {staging.VARIABLE: str(tmp_path / "file" / "inside")}) == shard
    monkeypatch.setattr(staging, "KEPT_FREE", 1.0)
    assert staged(shard, {staging.VARIABLE: str(tmp_path / "local")}) == shard
