"""The loader: plan order whatever the workers do, errors that name their files, no thread left behind."""

import random
import threading
import time
from itertools import islice

import numpy as np
import pytest

from toolkit.data.loader import FetchError, Loader, Position, in_order
from toolkit.data.order import plan


def _plan(epoch: int) -> list[list[int]]:
    return [batch.tolist() for batch in plan(np.array([0] * 5 + [1] * 4), 2, 0, epoch)]


def _slow(epoch: int, indices: list[int]) -> tuple[int, list[int]]:
    # later batches may well be done first
    time.sleep(random.random() / 200)
    return epoch, indices


def _data_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("data")]


@pytest.mark.parametrize(("num_workers", "prefetch"), [(0, 1), (1, 1), (1, 3), (4, 1), (4, 5)])
def test_batches_come_in_plan_order_for_any_number_of_workers(num_workers: int, prefetch: int) -> None:
    expected = [(epoch, batch) for epoch in range(4) for batch in _plan(epoch)]
    with Loader(_slow, _plan, (0, 0), num_workers, prefetch) as loader:
        assert [batch for _, batch in islice(loader, 20)] == expected
    assert not _data_threads()


def test_any_position_resumes_where_it_says() -> None:
    with Loader(_slow, _plan, num_workers=2) as loader:
        whole = list(islice(loader, 12))
    assert whole[4][0] == Position(1, 0)
    for number, (position, _) in enumerate(whole[:-1]):
        with Loader(_slow, _plan, position, num_workers=2) as loader:
            assert list(islice(loader, 11 - number)) == whole[number + 1 :]


def test_a_position_beyond_a_shrunken_plan_is_the_next_epoch() -> None:
    with Loader(_slow, _plan, (2, 99)) as loader:
        assert next(loader) == (Position(3, 1), (3, _plan(3)[0]))


def test_errors_surface_in_their_turn_and_name_the_samples() -> None:
    def fetch(epoch: int, indices: list[int]) -> list[int]:
        if indices == [2, 3]:
            raise OSError("disk on fire")
        return indices

    names = ["a.png", "b.png", "c.png", "d.png"]
    with Loader(
        fetch, lambda _: [[0, 1], [2, 3]], num_workers=3, name_of=lambda batch: ", ".join(map(names.__getitem__, batch))
    ) as loader:
        assert next(loader)[1] == [0, 1]
        with pytest.raises(FetchError, match=r"batch 1 of epoch 0 \(c.png, d.png\): disk on fire") as caught:
            next(loader)
    assert isinstance(caught.value.__cause__, OSError)
    assert not _data_threads()


def test_an_empty_plan_is_an_error_not_an_endless_search() -> None:
    with Loader(_slow, lambda _: []) as loader, pytest.raises(ValueError, match="no batches"):
        next(loader)


def test_an_epoch_without_batches_is_passed_over() -> None:
    with Loader(lambda epoch, batch: (epoch, batch), lambda epoch: [] if epoch % 3 else [[7]]) as loader:
        assert [next(loader) for _ in range(2)] == [((1, 0), (0, [7])), ((4, 0), (3, [7]))]


def test_prefetch_is_bounded() -> None:
    begun: list[int] = []

    def fetch(epoch: int, indices: list[int]) -> None:
        begun.append(indices[0])

    with Loader(fetch, lambda _: [[index] for index in range(1000)], num_workers=2, prefetch=3) as loader:
        next(loader)
        time.sleep(0.1)
        assert len(begun) == 7


def test_early_close_drops_what_is_not_begun() -> None:
    begun: list[int] = []
    release = threading.Event()

    def fetch(epoch: int, indices: list[int]) -> None:
        begun.append(indices[0])
        if indices[0]:
            release.wait(10)

    loader = Loader(fetch, lambda _: [[index] for index in range(100)], num_workers=1, prefetch=20)
    next(loader)
    threading.Timer(0.05, release.set).start()
    loader.close()
    assert len(begun) <= 3 and not _data_threads()
    with pytest.raises(StopIteration):
        next(loader)


def test_interrupt_in_the_consumer_ends_the_threads() -> None:
    with pytest.raises(KeyboardInterrupt), Loader(_slow, _plan, num_workers=2) as loader:
        for number, _ in enumerate(loader):
            if number == 3:
                raise KeyboardInterrupt
    assert not _data_threads()


def test_closing_a_loader_that_never_ran() -> None:
    Loader(_slow, _plan).close()
    assert not _data_threads()


def test_a_batch_is_ready_once_its_thread_is_done() -> None:
    release = threading.Event()

    def fetch(epoch: int, indices: list[int]) -> None:
        if indices[0]:
            release.wait(10)

    with Loader(fetch, lambda _: [[index] for index in range(10)], num_workers=1, prefetch=2) as loader:
        assert not loader.is_ready
        next(loader)
        assert not loader.is_ready
        release.set()
        for _ in range(200):
            if loader.is_ready:
                break
            time.sleep(0.01)
        assert loader.is_ready
    with Loader(fetch, lambda _: [[0]], num_workers=0) as inline:
        next(inline)
        assert not inline.is_ready


def test_in_order_ends_with_its_tasks() -> None:
    assert list(in_order(lambda x: x * x, range(10), 3, 2)) == [x * x for x in range(10)]
    assert list(in_order(lambda x: x * x, [], 3, 2)) == []
