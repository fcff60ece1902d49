"""A launcher's processes as copies of this one, for tests: what a training imports takes longer than it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import IO, Any

import pytest

from toolkit.launch import local

Main = Callable[[Sequence[str]], int]
"""What a process does with its command; returns the exit code."""


def fork_ranks(monkeypatch: pytest.MonkeyPatch, main: Main) -> None:
    """Have `run_ranks` copy this process, where it would start a program, and call `main` in the copies."""

    def start(*arguments: Any, **options: Any) -> Forked:
        return Forked(main, *arguments, **options)

    monkeypatch.setattr(local, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, DEVNULL=os.devnull))


class Forked:
    """What a launcher needs of `subprocess.Popen`, done by fork."""

    def __init__(
        self,
        main: Main,
        command: Sequence[str],
        env: Mapping[str, str],
        stdin: int,
        stdout: str | None,
        stderr: IO[bytes] | None,
        start_new_session: bool,
    ) -> None:
        assert stdin == subprocess.PIPE and start_new_session
        self._code: int | None = None
        pipe, own_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(own_end)
            self._become(main, command, env, pipe, stdout, stderr)
        os.close(pipe)
        self.stdin = os.fdopen(own_end, "wb")

    def _become(
        self,
        main: Main,
        command: Sequence[str],
        env: Mapping[str, str],
        pipe: int,
        stdout: str | None,
        stderr: IO[bytes] | None,
    ) -> None:
        """Be the new process, to its end."""
        code = 1
        try:
            os.setsid()
            for name in ("SIGTERM", "SIGUSR2", "SIGHUP"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(env)
            os.dup2(pipe, 0)
            if stdout is not None:
                os.dup2(os.open(stdout, os.O_WRONLY), 1)
            if stderr is not None:
                os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
            sys.__stderr__ = sys.stderr  # type: ignore[misc]
            code = main(command)
        except BaseException:  # a copy may not go on with what its parent was about to do
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._ended(os.WNOHANG)

    def wait(self) -> int | None:
        """The same when it has ended."""
        return self._ended(0)

    def _ended(self, options: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, options)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, number: int) -> None:
        """As the name says."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """As the name says."""
        os.kill(self.pid, signal.SIGKILL)
