"""What a worker process does: it carries out the calls of one pipe and answers through another, until the first closes.

It imports what the functions that it is called with need, and nothing else; `workers.py` is the other end.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import traceback
from typing import Any, BinaryIO

COUNT, LENGTH = struct.Struct("<I"), struct.Struct("<Q")


def serve() -> None:
    """Answer calls until nobody can make another one; how a process ends that lost its parent is the same."""
    # whoever stops a run stops its main process, which may want to finish a step first
    # (a cluster signals every process of a job)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    # what a library prints must not get between the answers
    os.dup2(2, 1)
    calls = sys.stdin.buffer
    while (call := receive(calls)) is not None:
        try:
            write(answers, pack(_answer(*call)))
        except BrokenPipeError:
            return


def _answer(function: Any, task: Any) -> tuple[bool, Any]:
    """(True, result), or (False, what went wrong)."""
    try:
        return True, function(task)
    except Exception as error:  # whatever it is, the main process raises it again
        return False, (f"{type(error).__name__}: {error}", traceback.format_exc())


def pack(value: Any) -> list[memoryview]:
    """A value as bytes to write, arrays as they lie in memory."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
    lengths = b"".join(LENGTH.pack(part.nbytes) for part in parts)
    return [memoryview(COUNT.pack(len(parts)) + lengths), *parts]


def write(file: BinaryIO, parts: list[memoryview]) -> None:
    """Write what was packed to an unbuffered file."""
    for part in parts:
        rest = part
        while rest:
            rest = rest[file.write(rest) :]


def receive(file: BinaryIO) -> Any:
    """The next value of a file; None at its end."""
    head = _read(file, COUNT.size)
    if head is None:
        return None
    (count,) = COUNT.unpack(head)
    parts = []
    for length in [LENGTH.unpack(_all(file, LENGTH.size))[0] for _ in range(count)]:
        parts.append(_all(file, length))
    return pickle.loads(parts[0], buffers=parts[1:])


def _all(file: BinaryIO, length: int) -> bytearray:
    data = _read(file, length)
    if data is None:
        raise EOFError
    return data


def _read(file: BinaryIO, length: int) -> bytearray | None:
    """So many bytes, in memory that an array can keep; None if the file ends before."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return None
        view = view[count:]
    return data
