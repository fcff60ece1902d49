"""Several processes of this machine: who is to blame when one fails, and signals that reach all of them once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from toolkit.launch import local
from toolkit.launch.environment import LOST_PEERS, lost_peers
from toolkit.launch.local import run_ranks
from toolkit.launch.parent import end_with_parent

ROOT = Path(__file__).resolve().parents[3]
HEAD = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
def end(code, text=""):
    if text:
        print(text, file=sys.stderr, flush=True)
    os._exit(code)
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")


def ranks(body: str, count: int = 2) -> int:
    """Run a script in several processes."""
    return run_ranks([sys.executable, "-S", "-c", HEAD + body], count, os.environ)


def test_all_go_well_and_only_the_first_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    assert ranks("os.write(1, b'%d' % rank)", 3) == 0
    assert capfd.readouterr().out == "0"


def test_the_port_where_they_meet_is_kept_for_the_first() -> None:
    body = """
import socket
address = ("127.0.0.1", int(os.environ["MASTER_PORT"]))
with socket.socket() as other, socket.socket() as own:
    try:
        other.bind(address)
    except OSError:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen()
    else:
        end(3)
"""
    assert ranks(body, 1) == 0


def test_the_error_of_another_rank_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    code = ranks(f"time.sleep(0.2 * (rank == 0)); end(3, 'no memory') if rank else end({LOST_PEERS})")
    assert code == 3
    assert capfd.readouterr().err == "rank 1 ended with exit code 3:\nno memory\n"


@pytest.mark.parametrize("first", [0, 1])
def test_what_all_ranks_say_is_told_by_the_first(first: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert ranks(f"time.sleep(0.2 * (rank != {first})); end(1, 'the loss became nan')") == 1
    assert capfd.readouterr().err == "the loss became nan\n"


def test_the_first_rank_fails_and_the_others_lose_it(capfd: pytest.CaptureFixture[str]) -> None:
    assert ranks(f"end(2, 'bad key') if rank == 0 else end({LOST_PEERS}, 'closed by peer')", 3) == 2
    assert capfd.readouterr().err == "bad key\n"


@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_is_killed_ends_one_that_hangs(
    killed: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    begin = time.monotonic()
    assert ranks(f"os.kill(os.getpid(), 9) if rank == {killed} else time.sleep(60)") == 1
    assert time.monotonic() - begin < 50
    assert capfd.readouterr().err == f"rank {killed} was killed by signal 9\n"


def test_who_lost_whom_is_said_if_nobody_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    assert ranks(f"end({LOST_PEERS})") == 1
    assert capfd.readouterr().err == "the processes of this run have lost each other, and none said why\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_each_rank_once(number: int, tmp_path: Path) -> None:
    """Also ctrl+c of a terminal, which goes to the whole group of the launcher."""
    body = f"""
heard = []
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda number, frame: heard.append(number))
open({str(tmp_path)!r} + f"/ready{{rank}}", "w").close()
while not heard:
    time.sleep(0.02)
time.sleep(0.3)
open({str(tmp_path)!r} + f"/heard{{rank}}", "w").write(repr(list(map(int, heard))))
end(130)
"""
    script = f"""
import os, sys
from toolkit.launch.local import run_ranks
sys.exit(run_ranks([sys.executable, "-S", "-c", {HEAD + body!r}], 2, os.environ))
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        # a shell that starts the tests without a terminal may have them ignore it
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    wait_for(tmp_path, "ready", launcher)
    os.killpg(launcher.pid, number)
    assert launcher.wait(60) == 130
    expected = signal.SIGTERM if number == signal.SIGHUP else number
    assert [(tmp_path / f"heard{rank}").read_text() for rank in range(2)] == [repr([int(expected)])] * 2


def test_a_signal_before_the_ranks_can_hear_it_is_a_stop_and_no_failure(tmp_path: Path) -> None:
    script = f"""
import os, sys
from toolkit.launch.local import run_ranks
body = "import time; open({str(tmp_path / "ready")!r}, 'a').write('x'); time.sleep(60)"
sys.exit(run_ranks([sys.executable, "-S", "-c", body], 2, os.environ))
"""
    launcher = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists() or (tmp_path / "ready").stat().st_size < 2:
        assert time.monotonic() < end and launcher.poll() is None
        time.sleep(0.02)
    launcher.terminate()
    assert launcher.communicate(timeout=60)[1] == b"" and launcher.returncode == 130


def test_ranks_are_stopped_when_their_launcher_is_killed(tmp_path: Path) -> None:
    body = f"""
sys.path.insert(0, {str(ROOT)!r})
from toolkit.launch.parent import end_with_parent
def heard(number, frame):
    open({str(tmp_path)!r} + f"/heard{{rank}}", "w").close()
    end(130)
signal.signal(signal.SIGTERM, heard)
end_with_parent(os.environ)
assert sys.stdin.read() == "", "who reads the input is not kept waiting"
open({str(tmp_path)!r} + f"/ready{{rank}}", "w").close()
time.sleep(60)
"""
    script = f"""
import os, sys
from toolkit.launch.local import run_ranks
run_ranks([sys.executable, "-S", "-c", {HEAD + body!r}], 2, os.environ)
"""
    launcher = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)})
    wait_for(tmp_path, "ready", launcher)
    launcher.kill()
    launcher.wait()
    wait_for(tmp_path, "heard")


def test_processes_of_a_cluster_have_no_launcher_to_watch() -> None:
    before = threading.active_count()
    end_with_parent({"AITK_LAUNCHED": "slurm", "RANK": "1"})
    assert threading.active_count() == before


def wait_for(folder: Path, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until both ranks have written a file of this name, while `process` is there."""
    end = time.monotonic() + 60
    while not all((folder / f"{name}{rank}").exists() for rank in range(2)):
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.02)


def test_lost_connections_are_told_from_other_errors() -> None:
    many, closed = {"WORLD_SIZE": "2"}, RuntimeError("[/x/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert lost_peers(closed, many) and not lost_peers(closed, {})
    assert not lost_peers(RuntimeError("shape mismatch"), many)
    in_use = "port: 20001, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use"
    assert not lost_peers(type("DistNetworkError", (RuntimeError,), {})(in_use), many), "nobody else would tell it"
    try:
        raise ValueError("step 3") from closed
    except ValueError as error:
        assert lost_peers(error, many)
