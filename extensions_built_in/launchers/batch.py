"""The keys of `launch` as a batch script."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.launch.flags import given
from toolkit.launch.limits import gpus_in
from toolkit.launch.script import Script, Shell
from toolkit.registry import ROOT

if TYPE_CHECKING:
    from extensions_built_in.launchers.config import Container, Slurm
    from jobs import Job
    from toolkit.config.plugins import ProcessPlugin

MARGIN_S = 30
"""What is left of the lead when torchrun ends its processes."""


@dataclass(frozen=True)
class Work:
    """What a job does, and where."""

    name: str
    folder: Path
    """For the script and the logs."""
    command: Sequence[str]
    """Python, the program, its config, options."""
    run_folder: str
    """Where the results go; `Shell` where each task of an array has one."""
    indices: tuple[int, ...] = ()
    """Of the array."""


def make_script(config: Slurm, work: Work, job: Job) -> Script:
    """The script; `job` tells what its values say about secrets, and what kind of work it is."""
    python = "python" if config.venv or config.container else sys.executable
    task = [python, *work.command[1:]]
    return Script(
        {**_options(config, work), **given(config.extra)},
        _torchrun(config, task) if config.torchrun else task,
        srun=[
            *([f"--cpus-per-task={_cores(config)}"] if config.cpus_per_task else []),
            *(_contained(config.container, _results(work)) if config.container else []),
        ],
        facts=_facts(config, work, job),
        num_machines=config.nodes,
        is_contained=config.container is not None,
        threads=config.cpus_per_task,
        stages_caches=config.stage_caches,
        offline_after=_joined(work.run_folder, "checkpoints.json") if _may_go_offline(job) else None,
        modules=config.modules,
        venv=config.venv,
        env={name: _value(job, name, value) for name, value in config.env.items()},
        setup=config.setup,
        teardown=config.teardown,
    )


def _options(config: Slurm, work: Work) -> dict[str, str | int | None]:
    """The flags of sbatch."""
    gpus = {"gres": config.gres, "gpus-per-node": config.gpus_per_node or None}
    if config.gres and gpus_in(config.gres) is not None:
        del gpus["gpus-per-node"]
    options: dict[str, str | int | None] = {
        "job-name": work.name,
        "account": config.account,
        "partition": config.partition,
        "qos": config.qos,
        "reservation": config.reservation,
        "nodes": config.nodes,
        "ntasks-per-node": 1 if config.torchrun else max(1, config.gpus),
        **gpus,
        "cpus-per-task": _cores(config),
        "mem": config.mem,
        "time": config.time,
        "constraint": config.constraint,
        "exclude": config.exclude,
        "mail-user": config.mail,
        "mail-type": "BEGIN,END,FAIL,REQUEUE" if config.mail and "mail-type" not in given(config.extra) else None,
        "dependency": config.dependency,
        "array": _spec(work.indices, config.array_parallelism) if work.indices else None,
    }
    log = "slurm-%A_%a.out" if work.indices else "slurm-%j.out"
    return {
        **{name: value for name, value in options.items() if value is not None},
        "requeue" if config.requeue else "no-requeue": None,
        "open-mode": "append",
        "signal": f"{config.signal}@{config.signal_lead_s}",
        "chdir": str(Path.cwd()),
        "output": f"{str(work.folder).replace('%', '%%')}/{log}",
    }


def _facts(config: Slurm, work: Work, job: Job) -> dict[str, str]:
    """What the tasks have to know of the launch."""
    facts = {
        "AITK_RUN_FOLDER": work.run_folder,
        "AITK_SCRIPT": str(work.folder / "submit.sbatch"),
        "AITK_MAX_REQUEUES": str(config.max_requeues if config.requeue else 0),
        "AITK_STOP_SIGNAL": config.signal,
        "AITK_SIGNAL_LEAD_S": str(config.signal_lead_s),
        "AITK_GPUS_PER_NODE": str(config.gpus),
    }
    parts = [part for process in job.processes for part in (*process.preparations(), process)]
    # otherwise nobody can tell whether a start has done anything
    if all(part.trains or part.filled() for part in parts) and not (work.indices and any(_filled(parts))):
        facts["AITK_PROGRESS"] = work.run_folder if work.indices else "\n".join(_trained(job))
        facts |= {"AITK_FILLED": "\n".join(map(str, _filled(parts)))} if any(_filled(parts)) else {}
    return facts


def _trained(job: Job) -> list[str]:
    """The run folders of the trainers of a job."""
    return [
        str(Path(process.training_folder).expanduser().absolute() / (process.name or job.name))  # type: ignore[attr-defined]
        for process in job.processes
        if process.trains
    ]


def _filled(parts: Sequence[ProcessPlugin]) -> list[Path]:
    """What else fills while a job works."""
    return [folder.absolute() for part in parts for folder in part.filled()]


def _cores(config: Slurm) -> int | None:
    """CPU cores of a task of SLURM, which with torchrun is all the processes of a machine."""
    if config.cpus_per_task is None or not config.torchrun:
        return config.cpus_per_task
    return config.cpus_per_task * max(1, config.gpus)


def _torchrun(config: Slurm, task: Sequence[str]) -> list[str]:
    """One torchrun per machine, which starts the processes and passes signals on to them.

    It would be killed by a signal that it does not know, and kills its processes some time after one that it passes on.
    """
    lead = max(MARGIN_S, config.signal_lead_s - MARGIN_S)
    meet = ["--standalone"]
    if config.nodes > 1:
        meet = [
            "--nnodes=$SLURM_NNODES",
            "--rdzv-backend=c10d",
            "--rdzv-id=$SLURM_JOB_ID",
            "--rdzv-endpoint=$MASTER_ADDR:$MASTER_PORT",
        ]
    agent = [
        "-m torch.distributed.run",
        *meet,
        f"--nproc-per-node={max(1, config.gpus)}",
        f"--signals-to-handle=SIG{config.signal},SIGTERM,SIGINT",
        f"--shutdown-timeout={lead}",
    ]
    # the variables that differ between the machines are put in by each of them
    return ["bash", "-c", f'exec "$0" {" ".join(agent)} "$@"', *task]


def _contained(container: Container, results: Path) -> list[str]:
    """Options of Pyxis; what aitk itself needs is seen inside under the name that it has outside."""
    own = dict.fromkeys(str(folder) for folder in (ROOT, results, Path.cwd()))
    mounts = [*(f"{folder}:{folder}" for folder in own), *container.mounts]
    return [
        f"--container-image={container.image}",
        f"--container-mounts={','.join(mounts)}",
        f"--container-workdir={Path.cwd()}",
    ]


def _results(work: Work) -> Path:
    """The folder of the results and of their caches, which a run has beside its own, and a sweep in it."""
    return work.folder.parent if work.indices else work.folder.parent.parent


def _may_go_offline(job: Job) -> bool:
    """Whether a start that finds a save needs nothing more of the Hub: of one trainer that does not upload."""
    if len(job.processes) != 1 or not job.processes[0].trains:
        return False
    save = getattr(job.processes[0], "save", None)
    return save is not None and not save.push_to_hub


def _value(job: Job, name: str, value: str) -> str:
    """A value of `launch.env`; one that came from the environment stays ${NAME}, which the job inherits."""
    written = job.document.secrets.get(("config", "launch", "env", name))
    return value if written is None else Shell(written)


def _joined(folder: str, name: str) -> str:
    return type(folder)(f"{folder}/{name}")


def _spec(indices: Sequence[int], at_once: int | None) -> str:
    """0-3,7%2: the tasks of an array, and how many of them at a time."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts) + (f"%{at_once}" if at_once else "")
