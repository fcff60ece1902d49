"""Several processes on this machine do one job together, one per GPU; the first that fails ends them all."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from types import FrameType
from typing import IO

from toolkit.launch.environment import LOST_PEERS, rank_variables
from toolkit.launch.parent import VARIABLE

GRACE_S = 30.0
"""How long the others may take to end by themselves after one has failed: the first may be saving."""
POLL_S = 0.1
STOPPED = 130
SHOWN = 20_000
"""Bytes of what a failed rank said."""

Ranks = Sequence["subprocess.Popen[bytes]"]


def run_ranks(command: Sequence[str], count: int, env: Mapping[str, str]) -> int:
    """Run `command` in `count` processes; the exit code of the first rank, or of the one that failed first.

    What rank 0 prints is shown. The others print nothing; if one of them is to blame, its errors are.
    """
    with ExitStack() as stack:
        port = stack.enter_context(kept_port())
        errors = [stack.enter_context(TemporaryFile()) for _ in range(1, count)]
        ranks: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, ranks)
        heard = stack.enter_context(_passing_on(ranks))
        for rank in range(count):
            ranks.append(
                subprocess.Popen(
                    command,
                    env={
                        **env,
                        **_threads(count, env),
                        **rank_variables(rank, count, "127.0.0.1", port),
                        VARIABLE: "1",
                    },
                    # nothing is written there: it ends with this process, and tells the rank so
                    stdin=subprocess.PIPE,
                    stdout=None if rank == 0 else subprocess.DEVNULL,
                    stderr=None if rank == 0 else errors[rank - 1],
                    # ctrl+c on a terminal reaches all of a group: ranks hear of it from here, once
                    start_new_session=os.name == "posix",
                )
            )
        ended = _wait(ranks)
        return _judge(ended, count, heard, errors)


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine that nobody listens at, and that the system gives to nobody else inside the block."""
    with socket.socket() as kept:
        # who sets this as well, as torch does, may listen there
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield int(kept.getsockname()[1])


def _threads(count: int, env: Mapping[str, str]) -> dict[str, str]:
    """Cores are shared out, or every rank would start as many threads as there are."""
    return {} if "OMP_NUM_THREADS" in env else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}


def _wait(ranks: Ranks) -> dict[int, int]:
    """Wait until all have ended; returns their exit codes in that order, without those that do not end by themselves.

    They get some time for it when one has failed, and when the first is done.
    """
    ended: dict[int, int] = {}
    deadline = float("inf")
    while len(ended) < len(ranks) and time.monotonic() < deadline:
        for number, rank in enumerate(ranks):
            if number not in ended and (code := rank.poll()) is not None:
                ended[number] = code
                if number == 0 or code not in (0, STOPPED):
                    deadline = min(deadline, time.monotonic() + GRACE_S)
        time.sleep(POLL_S)
    return ended


def _judge(ended: Mapping[int, int], count: int, heard: Sequence[int], errors: Sequence[IO[bytes]]) -> int:
    """The exit code of the whole, after saying what the first rank has not said itself."""
    innocent = {0, STOPPED, LOST_PEERS, *(-number for number in heard)}
    guilty = [rank for rank, code in ended.items() if code not in innocent]
    if ended.get(0, 0) > 0 and 0 in guilty:
        return ended[0]
    if guilty:
        rank = guilty[0]
        _tell(rank, ended[rank], errors[rank - 1] if rank else None)
        return max(1, ended[rank])
    if not any(ended.values()) and len(ended) == count:
        return 0
    if heard or STOPPED in ended.values():
        return STOPPED
    print("the processes of this run have lost each other, and none said why", file=sys.stderr)
    return 1


def _end(ranks: Ranks) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
        rank.wait()
        if rank.stdin:
            rank.stdin.close()


@contextmanager
def _passing_on(ranks: Ranks) -> Iterator[list[int]]:
    """Signals to stop go to every rank; gives the numbers of those that came."""
    heard: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        # the terminal is closed: stop as if asked to
        number = signal.SIGTERM if number == getattr(signal, "SIGHUP", None) else number
        heard.append(number)
        for rank in ranks:
            # on Windows, ctrl+c reaches all processes of a console by itself
            if rank.poll() is None and os.name == "posix":
                rank.send_signal(number)

    names = ["SIGINT", "SIGTERM", "SIGUSR2", "SIGHUP"]
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    wanted = [number for number in numbers if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    kept = {number: signal.signal(number, pass_on) for number in wanted}
    try:
        yield heard
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _tell(rank: int, code: int, said: IO[bytes] | None) -> None:
    text = ""
    if said is not None:
        size = said.seek(0, os.SEEK_END)
        said.seek(max(0, size - SHOWN))
        text = said.read().decode("utf-8", "replace").strip()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    print(f"rank {rank} {how}:\n{text}" if text else f"rank {rank} {how}", file=sys.stderr)
