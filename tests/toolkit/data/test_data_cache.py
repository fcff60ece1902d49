"""The row cache: what is put in comes out, also after a kill, beside other writers and from foreign folders."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from toolkit.data.cache.folder import cache_root, find_caches
from toolkit.data.cache.rows import DTYPES, RowCache, as_array, combine, key_for
from toolkit.data.cache.shard import Kind, pack

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="starts writers by fork")


def _key(number: int) -> bytes:
    return key_for(number=number)


def _row(value: float) -> dict[str, torch.Tensor]:
    return {"latents": torch.full((4, 2, 3), value, dtype=torch.bfloat16), "length": torch.tensor(int(value))}


def _assert_row(row: dict[str, torch.Tensor], value: float) -> None:
    assert set(row) == {"latents", "length"}
    assert row["latents"].dtype is torch.bfloat16 and row["length"].dtype is torch.int64
    assert torch.equal(row["latents"], _row(value)["latents"]) and row["length"].item() == int(value)


def _write(folder: Path, first: int, count: int) -> None:
    cache = RowCache(folder, shard_bytes=200)
    for number in range(first, first + count):
        cache.put(_key(number), _row(number))
    cache.flush()


def test_rows_come_back_before_and_after_reopening(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "deep" / "cache")
    cache.put(_key(1), _row(1))
    _assert_row(cache.get(_key(1)), 1)
    cache.flush()
    cache.put(_key(2), _row(2))
    cache.flush()
    for reader in (cache, RowCache(tmp_path / "deep" / "cache")):
        assert len(reader) == 2 and _key(1) in reader and _key(3) not in reader
        _assert_row(reader.get(_key(1)), 1)
        _assert_row(reader.get(_key(2)), 2)
        with pytest.raises(KeyError):
            reader.get(_key(3))
        with pytest.raises(KeyError):
            reader.gather([_key(1)], "other")


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    values = torch.arange(-4, 8).reshape(3, 4)
    row = {
        name: values.abs().to(dtype) if dtype.is_signed is False else values.to(dtype) for name, dtype in DTYPES.items()
    }
    row |= {
        "scalar": torch.tensor(1.5),
        "truth": torch.tensor(True),
        "empty": torch.zeros(0, 4),
        "zero": torch.zeros(2, 0),
    }
    row |= {"dotted.name/0": torch.ones(1, 1, 3, dtype=torch.bfloat16), "odd": torch.ones(3, dtype=torch.bool)}
    cache = RowCache(tmp_path)
    cache.put(_key(0), {"odd": torch.zeros(5, dtype=torch.uint8)})
    cache.put(_key(1), row)
    cache.flush()
    for reader in (cache, RowCache(tmp_path)):
        found = reader.get(_key(1))
        assert list(found) == list(row)
        for name, tensor in row.items():
            assert found[name].dtype is tensor.dtype and found[name].shape == tensor.shape, name
            assert found[name].data_ptr() % tensor.element_size() == 0, name
            raw = tensor.reshape(-1).view(torch.uint8)
            assert torch.equal(found[name].reshape(-1).view(torch.uint8), raw), name
            stacked = reader.gather([_key(1), _key(1)], name)
            assert stacked.dtype is tensor.dtype and torch.equal(stacked.reshape(-1).view(torch.uint8), raw.repeat(2))
        assert reader.shapes(_key(1)) == {name: tuple(tensor.shape) for name, tensor in row.items()}


def test_a_dtype_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch\.complex128 cannot be cached"):
        RowCache().put(_key(0), {"x": torch.zeros(2, dtype=torch.complex128)})


def test_gather_is_the_stack_of_single_rows(tmp_path: Path) -> None:
    _write(tmp_path, 0, 20)
    cache = RowCache(tmp_path)
    cache.put(_key(90), _row(90))
    for order in ([3, 3, 17, 0, 90, 8], [5], [90, 90]):
        keys = [_key(number) for number in order]
        for name in ("latents", "length"):
            expected = torch.stack([cache.get(key)[name] for key in keys])
            out = torch.empty_like(expected)
            assert torch.equal(cache.gather(keys, name), expected)
            assert cache.gather(as_array(keys), name, out) is out and torch.equal(out, expected)
        assert [row["length"].item() for row in cache.rows(keys)] == order


def test_gather_owns_its_memory_and_rows_are_views(tmp_path: Path) -> None:
    _write(tmp_path, 0, 2)
    cache = RowCache(tmp_path)
    cache.gather([_key(0)], "latents").fill_(9)
    _assert_row(cache.get(_key(0)), 0)
    assert cache.get(_key(1))["latents"].data_ptr() == cache.get(_key(1))["latents"].data_ptr()


def test_rows_of_several_shapes_are_not_stacked(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    for length in (3, 5):
        cache.put(_key(length), {"text": torch.ones(length, 2)})
    cache.flush()
    with pytest.raises(ValueError, match=r"'text' of several rows .* F32 \[3, 2\], F32 \[5, 2\]"):
        cache.gather([_key(3), _key(5)], "text")
    assert [len(row["text"]) for row in cache.rows([_key(5), _key(3)])] == [5, 3]


def test_many_keys_are_asked_for_at_once(tmp_path: Path) -> None:
    _write(tmp_path, 0, 10)
    cache = RowCache(tmp_path)
    cache.put(_key(20), _row(20))
    assert cache.contains([_key(number) for number in (4, 30, 20, 9)]).tolist() == [True, False, True, True]
    assert cache.contains(np.empty((0, 2), np.uint64)).tolist() == []
    assert RowCache().contains([_key(1)]).tolist() == [False] and len(RowCache(tmp_path / "new")) == 0


def test_memory_only() -> None:
    cache = RowCache(None, shard_bytes=500)
    for number in range(100):
        cache.put(_key(number), _row(number))
    cache.flush()
    assert len(cache) == 100
    _assert_row(cache.get(_key(0)), 0)
    _assert_row(cache.get(_key(99)), 99)
    assert cache.gather([_key(7), _key(98)], "length").tolist() == [7, 98]


def test_views_and_gradients_are_stored_as_plain_values(tmp_path: Path) -> None:
    batch = torch.arange(24.0).reshape(2, 3, 4).requires_grad_()
    expected = batch[1].detach().clone()
    cache = RowCache(tmp_path)
    cache.put(_key(0), {"x": batch[1].T, "y": batch[1]})
    # what is stored is no part of the batch, which may be used again
    batch.detach().zero_()
    cache.flush()
    row = RowCache(tmp_path).get(_key(0))
    assert torch.equal(row["x"], expected.T) and torch.equal(row["y"], expected) and not row["x"].requires_grad


def test_a_full_shard_is_written_at_once(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, shard_bytes=100)
    for number in range(5):
        cache.put(_key(number), _row(number))
    # 56 bytes a row, so every second one fills a shard
    assert len(list(tmp_path.iterdir())) == 2
    assert len(RowCache(tmp_path)) == 4 and len(cache) == 5


def test_rows_are_written_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, begin = RowCache(tmp_path), time.monotonic()
    cache.put(_key(0), _row(0))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(time, "monotonic", lambda: begin + 70)
    cache.put(_key(1), _row(1))
    assert len(RowCache(tmp_path)) == 2


def test_a_key_keeps_its_first_row(tmp_path: Path) -> None:
    first, second = RowCache(tmp_path), RowCache(tmp_path)
    for value, cache in ((1, first), (2, second)):
        cache.put(_key(0), _row(value))
        cache.put(_key(0), _row(9))
        _assert_row(cache.get(_key(0)), value)
        cache.flush()
    assert len(list(tmp_path.iterdir())) == 2
    # of two the shard whose name comes first serves everybody
    names = sorted(path.name for path in tmp_path.iterdir())
    served = int(load_file(tmp_path / names[0])["I64"].item())
    for cache in (first, second, RowCache(tmp_path)):
        cache.refresh()
        assert len(cache) == 1
        _assert_row(cache.get(_key(0)), served)


def test_a_row_is_never_put_together_from_two_writers(tmp_path: Path) -> None:
    caches = [RowCache(tmp_path), RowCache(tmp_path)]
    for name, cache in zip("xy", caches, strict=True):
        cache.put(_key(0), {name: torch.zeros(1)})
        cache.flush()
    assert len(RowCache(tmp_path).get(_key(0))) == 1


def test_refresh_shows_rows_of_other_writers(tmp_path: Path) -> None:
    reader = RowCache(tmp_path)
    _write(tmp_path, 0, 3)
    assert _key(2) not in reader
    reader.refresh()
    _assert_row(reader.get(_key(2)), 2)


def _write_for_ever(folder: Path, first: int) -> None:
    torch.set_num_threads(1)
    cache, number = RowCache(folder, shard_bytes=400_000), first
    while True:
        cache.put(_key(number), {"x": torch.full((10_000,), number)})
        number += 1


@needs_fork
def test_writers_that_are_killed_lose_only_their_last_shard(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_for_ever, args=(tmp_path, first)) for first in (0, 10**6)]
    for writer in writers:
        writer.start()
    for writer, first in zip(writers, (0, 10**6), strict=True):
        reader = RowCache(tmp_path)
        while _key(first + 20) not in reader:
            time.sleep(0.01)
            reader.refresh()
        writer.kill()
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL
    cache = RowCache(tmp_path)
    assert cache.notices == []
    for first in (0, 10**6):
        there = cache.contains([_key(first + number) for number in range(len(cache) + 5)])
        count = int(there.argmin())
        # five rows fill a shard
        assert count > 20 and count % 5 == 0 and not there[count:].any()
        values = cache.gather([_key(first + number) for number in range(count)], "x")
        assert torch.equal(values, torch.arange(first, first + count).unsqueeze(1).expand_as(values))


def _write_and_die(folder: Path) -> None:
    cache = RowCache(folder)
    cache.put(_key(0), _row(1))
    cache.flush()
    cache.put(_key(1), _row(2))
    os.kill(os.getpid(), signal.SIGKILL)


@needs_fork
def test_a_kill_loses_what_was_not_flushed(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path,))
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    cache = RowCache(tmp_path)
    assert _key(1) not in cache and cache.notices == []
    _assert_row(cache.get(_key(0)), 1)


def _read_many_files(folder: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (120, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    cache = RowCache(folder)
    assert cache.notices == [] and cache.gather([_key(number) for number in range(150)], "n").tolist() == [*range(150)]


@needs_fork
def test_more_files_than_may_be_open_by_default_are_read(tmp_path: Path) -> None:
    for number in range(150):
        with (tmp_path / f"{number:024x}.safetensors").open("wb") as file:
            value = np.array([number], "<i8").view(np.uint8)
            pack({_key(number): [(Kind("n", "I64", ()), value)]}, {}).write(file)
    reader = multiprocessing.get_context("fork").Process(target=_read_many_files, args=(tmp_path,))
    reader.start()
    reader.join(60)
    assert reader.exitcode == 0


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
        _assert_row(cache.get(_key(number)), number)


@pytest.mark.parametrize("length", [0, 5, 100, -40, -1])
def test_truncated_shard_is_skipped_with_a_notice(tmp_path: Path, length: int) -> None:
    _write(tmp_path, 0, 1)
    (broken,) = tmp_path.iterdir()
    broken.write_bytes(broken.read_bytes()[:length])
    _write(tmp_path, 5, 1)
    cache = RowCache(tmp_path)
    cache.refresh()
    assert _key(0) not in cache and _key(5) in cache
    (notice,) = cache.notices
    assert str(broken) in notice and "damaged" in notice and "aitk cache verify --delete" in notice
    cache.put(_key(0), _row(0))
    cache.flush()
    _assert_row(RowCache(tmp_path).get(_key(0)), 0)


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    save_file({"a/latents": torch.zeros(1)}, tmp_path / "lora.safetensors", metadata={"format": "pt"})
    cache = RowCache(tmp_path)
    assert len(cache) == 0
    assert len(cache.notices) == 1 and "lora.safetensors" in cache.notices[0]
    assert [path.name for path in tmp_path.iterdir()] == ["lora.safetensors"]


def test_files_of_another_version_are_skipped_with_one_notice(tmp_path: Path) -> None:
    for number in range(3):
        save_file({"a/x": torch.zeros(1)}, tmp_path / f"{number:024x}.safetensors", metadata={"format": "aitk-rows-1"})
    cache = RowCache(tmp_path)
    (notice,) = cache.notices
    assert len(cache) == 0 and "3 files in the format of another version" in notice and "aitk cache prune" in notice


def test_a_failed_write_leaves_no_file_and_keeps_the_rows(tmp_path: Path) -> None:
    cache = RowCache(tmp_path / "c")
    cache.put(_key(0), _row(1))
    (tmp_path / "c").rmdir()
    (tmp_path / "c").touch()
    with pytest.raises(OSError):
        cache.flush()
    (tmp_path / "c").unlink()
    cache.flush()
    _assert_row(RowCache(tmp_path / "c").get(_key(0)), 1)


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_rows_can_be_read_after_their_files_were_deleted(tmp_path: Path) -> None:
    _write(tmp_path, 0, 8)
    cache = RowCache(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    cache.refresh()
    _assert_row(cache.get(_key(0)), 0)
    assert cache.gather([_key(number) for number in range(8)], "length").tolist() == list(range(8))


def test_a_file_that_was_read_counts_as_used(tmp_path: Path) -> None:
    for number in range(2):
        _write(tmp_path, number, 1)
    for path in tmp_path.iterdir():
        os.utime(path, (1000, 1000))
    RowCache(tmp_path).get(_key(1))
    used = {int(load_file(path)["I64"].item()): path.stat().st_mtime for path in tmp_path.iterdir()}
    assert used[0] == 1000 and used[1] > 10**9


def test_reading_from_many_threads(tmp_path: Path) -> None:
    _write(tmp_path, 0, 50)
    cache = RowCache(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        for number, row in enumerate(pool.map(lambda index: cache.get(_key(index % 50)), range(1000))):
            _assert_row(row, number % 50)


@pytest.mark.parametrize("is_on_disk", [True, False])
def test_reading_while_rows_move_from_memory_to_shards(tmp_path: Path, is_on_disk: bool) -> None:
    """A shard every third row, while readers ask for rows that are there already."""
    cache = RowCache(tmp_path if is_on_disk else None, shard_bytes=150)
    num_rows, written, problems = 120, [0], list[BaseException]()

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while written[0] < num_rows:
                if (limit := written[0]) > 1:
                    numbers = rng.integers(0, limit, 4).tolist()
                    keys = [_key(number) for number in numbers]
                    assert cache.contains(as_array(keys)).all() and keys[0] in cache
                    assert cache.gather(keys, "latents")[:, 0, 0, 0].tolist() == numbers
                    _assert_row(cache.get(keys[-1]), numbers[-1])
        except BaseException as error:
            problems.append(error)

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read, seed) for seed in range(4)]
        for number in range(num_rows):
            cache.put(_key(number), _row(number))
            written[0] = number + 1
        for reader in readers:
            reader.result()
    assert not problems and len(cache) == num_rows


class Moving(RowCache):
    """Writes what waits right after it was asked for its shards."""

    moves = False

    @property
    def _stored(self) -> Any:
        found = self.__dict__["stored"]
        if self.moves:
            self.moves = False
            self.flush()
        return found

    @_stored.setter
    def _stored(self, value: Any) -> None:
        self.__dict__["stored"] = value


@pytest.mark.parametrize(
    "finds",
    [
        lambda cache, key: cache.get(key)["length"].item() == 1,
        lambda cache, key: cache.gather([key], "length").item() == 1,
        lambda cache, key: cache.contains([key]).all(),
        lambda cache, key: key in cache,
    ],
)
def test_a_row_is_found_in_the_moment_when_it_moves(tmp_path: Path, finds: Callable[[RowCache, bytes], bool]) -> None:
    cache = Moving(tmp_path)
    cache.put(_key(1), _row(1))
    cache.moves = True
    assert finds(cache, _key(1))
    assert finds(cache, _key(1))


def test_writers_in_several_threads_lose_nothing(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, shard_bytes=150)

    def write(first: int) -> None:
        for number in range(first, 160, 4):
            cache.put(_key(number), _row(number))
            if number % 10 == 0:
                cache.flush()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    cache.flush()
    again = RowCache(tmp_path)
    assert len(again) == 160
    for number in range(160):
        _assert_row(again.get(_key(number)), number)


def test_files_are_plain_safetensors_with_short_headers(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, about={"family": "flux", "dtype": "bfloat16"})
    for number in range(3000):
        cache.put(_key(number), {"text": torch.full((1 + number % 7, 2), number, dtype=torch.float32)})
    cache.flush()
    (path,) = tmp_path.iterdir()
    assert int.from_bytes(path.read_bytes()[:8], "little") < 1000
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["format"] == "aitk-rows-2" and told["about"] == '{"family": "flux", "dtype": "bfloat16"}'
    tensors = load_file(path)
    assert tensors["keys"].shape == (3000, 2) and tensors["keys"].dtype is torch.uint64
    assert tensors["F32"].shape == (sum(2 * (1 + number % 7) for number in range(3000)),)


def test_keys() -> None:
    base = {"content": "x", "size": (512, 512), "flip": True, "dtype": "bf16"}
    assert key_for(**base) == key_for(**dict(reversed(base.items())))
    assert key_for(a=1).hex() == "2c6b113b8dd15ffbded9860b43eb0c6c"
    changed = [{**base, name: "other"} for name in base] + [{**base, "more": None}]
    assert len({key_for(**parts) for parts in [base, *changed]}) == 6
    with pytest.raises(TypeError):
        key_for(path=Path("a"))


def test_a_key_of_content_and_view_is_their_xor_also_for_many() -> None:
    contents, view = [_key(number) for number in range(5)], key_for(size=[8, 8])
    combined = as_array(contents) ^ as_array([view])
    assert combined.shape == (5, 2) and combined.dtype == np.uint64
    assert [row.tobytes() for row in combined] == [combine(content, view) for content in contents]
    assert combine(bytes(range(16)), bytes([255] * 16)) == bytes(255 - number for number in range(16))


def test_cache_root(tmp_path: Path) -> None:
    run = Path("output") / "my_lora"
    assert cache_root(run, {}) == Path("output") / ".aitk_cache"
    assert cache_root(run, {"AITK_CACHE": " "}) == Path("output") / ".aitk_cache"
    assert cache_root(run, {"AITK_CACHE": "/big/disk"}) == Path("/big/disk")
    for name in ("output/.aitk_cache", "output/sets/.aitk_cache", "elsewhere/.aitk_cache", "a/b/.aitk_cache"):
        (tmp_path / name).mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_caches(tmp_path, {})]
    assert found == ["elsewhere/.aitk_cache", "output/.aitk_cache", "output/sets/.aitk_cache"]
    assert find_caches(tmp_path, {"AITK_CACHE": str(tmp_path / "a")}) == [tmp_path / "a"]
    assert find_caches(tmp_path, {"AITK_CACHE": str(tmp_path / "none")}) == []


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be used .*; set AITK_CACHE to a folder that can be written to"):
        RowCache(tmp_path / "file" / "latents")
