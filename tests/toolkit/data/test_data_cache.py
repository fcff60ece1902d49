"""The row cache: what is put in comes out, also after a kill, beside other writers and from foreign folders."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from toolkit.data.cache import RowCache, key_for
from toolkit.data.cache_folder import cache_root

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts writers by fork")


def _row(value: float) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((4, 2, 3), value, dtype=torch.bfloat16), "length": torch.tensor(int(value))}


def _assert_row(row: dict[str, torch.Tensor], value: float) -> None:
    assert set(row) == {"latents", "length"}
    assert row["latents"].dtype is torch.bfloat16 and row["length"].dtype is torch.int64
    assert torch.equal(row["latents"], _row(value)["latents"]) and row["length"].item() == int(value)


def _write(folder: Path, first: int, count: int) -> None:
    cache = RowCache(folder, shard_bytes=200)
    for number in range(first, first + count):
        cache.put(f"k{number}", _row(number))
    cache.flush()


def _write_and_die(folder: Path) -> None:
    cache = RowCache(folder)
    cache.put("safe", _row(1))
    cache.flush()
    cache.put("lost", _row(2))
    os.kill(os.getpid(), signal.SIGKILL)


def test_rows_come_back_before_and_after_reopening(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "deep" / "cache")
    cache.put("a", _row(1))
    _assert_row(cache.get("a"), 1)
    cache.flush()
    cache.put("b.c", _row(2))
    cache.flush()
    for reader in (cache, RowCache(tmp_path / "deep" / "cache")):
        assert len(reader) == 2 and "a" in reader and "x" not in reader
        _assert_row(reader.get("a"), 1)
        _assert_row(reader.get("b.c"), 2)
        with pytest.raises(KeyError):
            reader.get("x")


def test_memory_only(tmp_path: Path) -> None:
    cache = RowCache(None, shard_bytes=1)
    cache.put("a", _row(1))
    cache.flush()
    _assert_row(cache.get("a"), 1)


def test_views_and_gradients_are_stored_as_plain_values(tmp_path: Path) -> None:
    batch = torch.arange(24.0).reshape(2, 3, 4).requires_grad_()
    cache = RowCache(tmp_path)
    cache.put("a", {"x": batch[1].T, "y": batch[1]})
    assert all(tensor.untyped_storage().nbytes() == 12 * 4 for tensor in cache.get("a").values())
    cache.flush()
    row = RowCache(tmp_path).get("a")
    assert torch.equal(row["x"], batch[1].T) and torch.equal(row["y"], batch[1]) and not row["x"].requires_grad


def test_a_full_shard_is_written_at_once(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, shard_bytes=100)
    for number in range(5):
        cache.put(f"k{number}", _row(number))
    # 56 bytes a row, so every second one fills a shard
    assert len(list(tmp_path.iterdir())) == 2
    assert len(RowCache(tmp_path)) == 4


def test_a_key_keeps_its_first_row(tmp_path: Path) -> None:
    first, second = RowCache(tmp_path), RowCache(tmp_path)
    for value, cache in ((1, first), (2, second)):
        cache.put("a", _row(value))
        cache.put("a", _row(9))
        cache.flush()
    _assert_row(first.get("a"), 1)
    first.refresh()
    _assert_row(first.get("a"), 1)
    assert RowCache(tmp_path).get("a")["length"].item() in (1, 2)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_row_is_never_put_together_from_two_writers(tmp_path: Path) -> None:
    caches = [RowCache(tmp_path), RowCache(tmp_path)]
    for name, cache in zip("xy", caches, strict=True):
        cache.put("a", {name: torch.zeros(1)})
        cache.flush()
    assert len(RowCache(tmp_path).get("a")) == 1


def test_refresh_shows_rows_of_other_writers(tmp_path: Path) -> None:
    reader = RowCache(tmp_path)
    _write(tmp_path, 0, 3)
    assert "k2" not in reader
    reader.refresh()
    _assert_row(reader.get("k2"), 2)


@needs_fork
def test_several_processes_write_to_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, 10 * number, 10)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    cache = RowCache(tmp_path)
    assert cache.notices == [] and len(cache) == 30
    for number in range(30):
        _assert_row(cache.get(f"k{number}"), number)


@needs_fork
def test_a_kill_loses_only_what_was_not_flushed(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    cache = RowCache(tmp_path)
    assert "lost" not in cache and cache.notices == []
    _assert_row(cache.get("safe"), 1)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_truncated_shard_is_skipped_with_a_notice(tmp_path: Path, length: int) -> None:
    _write(tmp_path, 0, 1)
    (broken,) = tmp_path.iterdir()
    broken.write_bytes(broken.read_bytes()[:length])
    _write(tmp_path, 5, 1)
    cache = RowCache(tmp_path)
    assert "k0" not in cache and "k5" in cache
    assert len(cache.notices) == 1 and str(broken) in cache.notices[0]
    cache.put("k0", _row(0))
    cache.flush()
    _assert_row(RowCache(tmp_path).get("k0"), 0)


def test_foreign_and_half_written_files_are_left_alone(tmp_path: Path) -> None:
    save_file({"a/latents": torch.zeros(1)}, tmp_path / "lora.safetensors", metadata={"format": "pt"})
    (tmp_path / ".aitk-tmp-0123456789ab-x.safetensors").write_bytes(b"half")
    cache = RowCache(tmp_path)
    assert len(cache) == 0
    assert len(cache.notices) == 1 and "lora.safetensors" in cache.notices[0]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_write_leaves_no_file_and_keeps_the_rows(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "c")
    cache.put("a", _row(1))
    (tmp_path / "c").rmdir()
    (tmp_path / "c").touch()
    with pytest.raises(OSError):
        cache.flush()
    (tmp_path / "c").unlink()
    cache.flush()
    _assert_row(RowCache(tmp_path / "c").get("a"), 1)


def test_reading_from_many_threads(tmp_path: Path) -> None:
    _write(tmp_path, 0, 50)
    cache = RowCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for number, row in enumerate(pool.map(lambda index: cache.get(f"k{index % 50}"), range(1000))):
            _assert_row(row, number % 50)


def test_keys() -> None:
    base = {"content": "x", "size": (512, 512), "flip": True, "dtype": "bf16"}
    assert key_for(**base) == key_for(**dict(reversed(base.items())))
    assert key_for(**base) == "92966da7b08b1e8032674b5e8e6008a8781055ca"
    changed = [{**base, name: "other"} for name in base] + [{**base, "more": None}]
    assert len({key_for(**parts) for parts in [base, *changed]}) == 6
    with pytest.raises(TypeError):
        key_for(path=Path("a"))


def test_cache_root() -> None:
    run = Path("output") / "my_lora"
    assert cache_root(run, {}) == Path("output") / ".aitk_cache"
    assert cache_root(run, {"AITK_CACHE": " "}) == Path("output") / ".aitk_cache"
    assert cache_root(run, {"AITK_CACHE": "/big/disk"}) == Path("/big/disk")


def test_shapes_are_known_before_and_after_writing(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    row = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b.0": torch.zeros(()), "c": torch.zeros(0, 4)}
    cache.put("key", row)
    shapes = {name: tuple(tensor.shape) for name, tensor in row.items()}
    assert cache.shapes("key") == shapes
    cache.flush()
    assert cache.shapes("key") == RowCache(tmp_path).shapes("key") == shapes
