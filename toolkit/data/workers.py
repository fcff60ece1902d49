"""A pool of processes that decode pictures: results in order, a bounded number ahead, gone when their parent is.

Each process is a fresh interpreter that imports this package and not the script that was started, so that a pool works
in scripts without a main guard and in notebooks too. A thread for each hands it calls through one pipe and takes the
answers from another. Arrays go through the pipe as they lie in memory: measured, that costs a tenth more than shared
memory, which containers limit and killed processes leave behind.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

from toolkit.data.loader import in_order
from toolkit.data.worker import pack, receive, write

T = TypeVar("T")
R = TypeVar("R")
APART_FROM = 32e6
"""So many pixels are worth processes of their own (32 pictures at 1024 x 1024); less is decoded by threads sooner."""
SMALL_CALL = 1 << 14
"""A call of up to so many bytes fits into a pipe beside another one, so that writing it never has to wait."""


class WorkerError(RuntimeError):
    """A worker process failed or died; says what it was working on."""


@dataclass
class _Call:
    function: Callable[[Any], Any]
    task: Any
    name: str
    future: Future[Any] = field(default_factory=Future)


@dataclass
class _Shared:
    """What the pool and its threads have in common."""

    calls: queue.SimpleQueue[_Call | None] = field(default_factory=queue.SimpleQueue)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    is_closed: bool = False


class Workers:
    """Processes that carry out calls; they start with the first one, or with `start`.

    `num_workers`: 0 does everything in the calling thread. `prefetch`: so many results are made ahead per worker. Use
    it as a context manager, or call `close`; what is neither ends with the pool's last reference or with the program.
    """

    def __init__(self, num_workers: int = 2, prefetch: int = 2) -> None:
        self.num_workers, self.prefetch = num_workers, prefetch
        self._shared = _Shared()
        self._close = weakref.finalize(self, _close, self._shared)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes at once; results that nobody has taken yet are lost."""
        self._close()

    def start(self) -> None:
        """Begin to start the processes, without waiting for them."""
        shared = self._shared
        with shared.lock:
            assert not shared.is_closed
            if not shared.threads:
                shared.threads += [
                    threading.Thread(target=_tend, args=(shared,), name=f"worker-{number}", daemon=True)
                    for number in range(self.num_workers)
                ]
                for thread in shared.threads:
                    thread.start()

    def call(self, function: Callable[[T], R], task: T, name: str) -> Future[R]:
        """Let a process do `function(task)`; both are pickled. `name` says in an error what it was about."""
        assert self.num_workers
        self.start()
        call = _Call(function, task, name)
        self._shared.calls.put(call)
        return call.future

    def map(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        name_of: Callable[[T], str] = str,
        *,
        apart: bool = True,
        ahead: int = 0,
    ) -> Iterator[R]:
        """`map(function, tasks)`: the same results, in the same order; at most `ahead` of them before their turn.

        `apart` says whether it is worth processes; threads of this process do it otherwise.
        """
        most = max(self.num_workers * self.prefetch, ahead)
        if not (apart and self.num_workers):
            yield from in_order(function, tasks, self.num_workers, -(-most // max(1, self.num_workers)))
            return
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(self.call(function, task, name_of(task)))
                if len(waiting) > most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _close(shared: _Shared) -> None:
    with shared.lock:
        shared.is_closed = True
        for process in shared.processes:
            process.kill()
    for _ in shared.threads:
        shared.calls.put(None)
    for thread in shared.threads:
        if thread is not threading.current_thread():
            thread.join()


def _tend(shared: _Shared) -> None:
    """Start a process and keep it busy: while it works on one call, the next one is in its pipe already."""
    process = _start(shared)
    if process is None:
        return
    given: deque[_Call] = deque()
    held: tuple[_Call, list[memoryview]] | None = None
    while True:
        while len(given) < 2:
            held = held or _next_call(shared, wait=not given)
            # a large call would wait for a process that itself waits until its answer is taken
            if held is None or (given and sum(map(len, held[1])) > SMALL_CALL):
                break
            given.append(held[0])
            with contextlib.suppress(OSError):
                write(process.stdin, held[1])  # type: ignore[arg-type]
            held = None
        if not given or not _take(process, given, shared):
            return _end(process)


def _next_call(shared: _Shared, wait: bool) -> tuple[_Call, list[memoryview]] | None:
    """The next call that is still wanted, packed; None if there is none, or there will be none any more."""
    while True:
        try:
            call = shared.calls.get(block=wait)
        except queue.Empty:
            return None
        if call is None:
            # for the next look, if something is still to be done before
            if not wait:
                shared.calls.put(None)
            return None
        if call.future.cancelled():
            continue
        try:
            return call, pack((call.function, call.task))
        except Exception as error:  # whatever a task holds that cannot be pickled
            _settle(call.future, WorkerError(f"{call.name}: cannot be sent to a worker process: {error}"))


def _start(shared: _Shared) -> subprocess.Popen[bytes] | None:
    code = f"import sys; sys.path[:] = {sys.path!r}; from toolkit.data.worker import serve; serve()"
    # a group of its own: ctrl+c in a terminal reaches the main process alone
    if os.name == "nt":
        apart: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    else:
        apart = {"start_new_session": True}
    # one thread each: there are as many processes as were asked for
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with shared.lock:
        if shared.is_closed:
            return None
        # without it, Pillow gives the memory of every picture back and takes it anew, which costs a tenth of the time
        single["PILLOW_BLOCKS_MAX"] = "8"
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **single},
            **apart,
        )
        shared.processes.append(process)
    return process


def _take(process: subprocess.Popen[bytes], given: deque[_Call], shared: _Shared) -> bool:
    """Hand out the answer to the oldest call; False if the process is gone."""
    try:
        answer = receive(process.stdout)  # type: ignore[arg-type]
    except EOFError:
        answer = None
    if answer is None:
        error = WorkerError(f"the worker process that read {given[0].name} {_cause(process.wait())}")
        for call in given:
            call.future.cancel() if shared.is_closed else _settle(call.future, error)
        return False
    is_good, value = answer
    call = given.popleft()
    if is_good:
        _settle(call.future, value)
    else:
        message, trace = value
        error = WorkerError(f"{call.name}: {message}")
        error.__cause__ = RuntimeError(f"in the worker process:\n{trace}")
        _settle(call.future, error)
    return True


def _settle(future: Future[Any], value: Any) -> None:
    # somebody may have given up waiting for it
    with contextlib.suppress(InvalidStateError):
        if isinstance(value, WorkerError):
            future.set_exception(value)
        else:
            future.set_result(value)


def _cause(code: int) -> str:
    if code == -9:
        return "was killed, probably because memory ran out; lower num_workers, or the size of the pictures"
    return f"ended by signal {-code}" if code < 0 else f"ended with exit status {code}; what it printed says why"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
