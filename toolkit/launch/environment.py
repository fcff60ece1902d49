"""What a process learns from its environment about the others that do the same job: its rank, and how many there are.

torch's names: RANK and LOCAL_RANK count from 0, over all machines and on this one; WORLD_SIZE is how many there are.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping, MutableMapping

LOST_PEERS = 69
"""EX_UNAVAILABLE of sysexits.h: exit code of a process that ends because another one of its run did."""
_LOST = {"DistBackendError", "DistNetworkError", "DistStoreError"}
_LOST_TEXTS = ("closed by peer", "reset by peer", "roken pipe", "Socket", "imed out")
"""Of gloo's messages; some are spelled with a capital, and elsewhere without."""


def own_rank(env: Mapping[str, str]) -> int:
    """The number of this process; 0 prints and writes."""
    return int(env.get("RANK", "0"))


def lost_peers(error: BaseException, env: Mapping[str, str]) -> bool:
    """Whether an error of one of several processes says no more than that another one is gone."""
    seen: BaseException | None = error if int(env.get("WORLD_SIZE", "1")) > 1 else None
    while seen is not None:
        text = str(seen)
        if "ddress already in use" in text:  # of the port where they meet, and nobody else would tell
            return False
        if type(seen).__name__ in _LOST or ("gloo" in text and any(part in text for part in _LOST_TEXTS)):
            return True
        seen = seen.__cause__
    return False


def is_launched(env: Mapping[str, str]) -> bool:
    """Whether a launcher started this process, so that it does the job instead of launching it."""
    return "AITK_LAUNCHED" in env


def on_cluster(env: Mapping[str, str]) -> bool:
    """Whether this process is a task of a batch job that aitk submitted."""
    return env.get("AITK_LAUNCHED") == "slurm"


def stop_signals(env: Mapping[str, str]) -> list[int]:
    """What a cluster sends to a job that has to end: before its time is up, and when it is preempted or cancelled."""
    names = ("SIGTERM", f"SIG{env.get('AITK_STOP_SIGNAL', 'USR2')}")
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


def lacks_gpus(env: Mapping[str, str], num_seen: int) -> str:
    """What is wrong with the GPUs that this process sees on a cluster; empty if nothing is.

    It may see all of its machine that belong to the job, or be bound to its own.
    """
    wanted = int(env.get("AITK_GPUS_PER_NODE", "0")) if on_cluster(env) else 0
    if wanted == 0 or num_seen == 1 or num_seen >= wanted:
        return ""
    seen = f"{num_seen} of them" if num_seen else "none"
    return f"{wanted} GPUs of each machine were asked for, but torch sees {seen} on {socket.gethostname()}"


def cluster_ranks(env: Mapping[str, str]) -> dict[str, str]:
    """torch's names for what SLURM says about this task; nothing where torchrun or another launcher has said it."""
    if not on_cluster(env) or "RANK" in env or "SLURM_PROCID" not in env:
        return {}
    world = int(env["SLURM_NTASKS"])
    return {
        "RANK": env["SLURM_PROCID"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world // int(env.get("SLURM_NNODES", "1"))),
    }


def claim_local_disk(env: MutableMapping[str, str]) -> None:
    """Make the folder of a cluster job on this machine's disk; go without it if another user was there first.

    Compilers run what they find in their caches, and /tmp is everybody's.
    """
    place = env.get("AITK_LOCAL", "") if on_cluster(env) else ""
    if not place:
        return
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        is_own = os.stat(place).st_uid == os.getuid()
    except OSError:
        is_own = False
    if not is_own:
        for name in ("AITK_LOCAL", "AITK_STAGE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            env.pop(name, None)


def rank_variables(rank: int, world: int, host: str, port: int) -> dict[str, str]:
    """The environment of a process among `world` on one machine, whose first listens at `port` of `host`."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "AITK_LAUNCHED": "local",
    }
