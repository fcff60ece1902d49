"""A real SLURM cluster of two nodes on this machine, for tests: munged, slurmctld and two slurmd in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import randbelow

from toolkit.launch.local import kept_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
NODES = ("n1", "n2")
CONF = """
ClusterName=aitk
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
FirstJobId={first}
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=1,bf_interval=1
ReturnToService=2
JobRequeue=1
KillWait=5
CompleteWait=0
InactiveLimit=0
MinJobAge=3600
SlurmdTimeout=30
{nodes}
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4000 State=UNKNOWN"


def why_not() -> str:
    """Why no cluster can be started here; empty if one can."""
    missing = [name for name in PROGRAMS if _find(name) is None]
    if missing:
        return f"{', '.join(missing)} missing (Debian: apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "the daemons of SLURM need root"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Start a cluster in `folder`; gives the environment for its commands, and ends it by the pids of its daemons."""
    for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    # munged insists on folders that nobody else can write to
    for path in (folder, folder / "munge"):
        path.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    env = {**os.environ, "SLURM_CONF": str(conf)}
    with ExitStack() as stack:
        ports = [stack.enter_context(kept_port()) for _ in NODES]
        nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True)]
        facts = {"host": host, "ctld": stack.enter_context(kept_port()), "folder": folder, "nodes": "\n".join(nodes)}
        conf.write_text(CONF.format(**facts, first=1 + randbelow(60_000)), encoding="utf-8")
        _start_munge(folder, stack)
        _start([_path("slurmctld"), "-D", "-f", str(conf)], env, stack)
        for node in NODES:
            _start([_path("slurmd"), "-D", "-f", str(conf), "-N", node], env, stack)
        _wait_for_nodes(env)
        yield env


def _start_munge(folder: Path, stack: ExitStack) -> None:
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    place = folder / "munge"
    _start(
        [
            _path("munged"),
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={place}/socket",
            f"--pid-file={place}/pid",
            f"--log-file={place}/log",
            f"--seed-file={place}/seed",
        ],
        dict(os.environ),
        stack,
    )
    _wait(lambda: (place / "socket").exists(), "munged did not start")


def _start(command: list[str], env: dict[str, str], stack: ExitStack) -> None:
    daemon = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    stack.callback(end)


def _wait_for_nodes(env: dict[str, str]) -> None:
    def is_idle() -> bool:
        with suppress(subprocess.SubprocessError):
            shown = subprocess.run(
                ["sinfo", "--noheader", "--format=%T %D"],
                env=env,
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
            return shown.stdout.split() == ["idle", str(len(NODES))]
        return False

    _wait(is_idle, "the nodes did not become idle")


def _wait(condition: object, failure: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise RuntimeError(failure)
        time.sleep(0.1)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _path(name: str) -> str:
    found = _find(name)
    assert found is not None
    return found
