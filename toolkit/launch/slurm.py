"""What is asked of SLURM: submit, start again. Its programs are the interface, nothing else is needed.

What it knows of jobs: queue.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 120
OF_THE_JOB = re.compile(
    r"SLURM_.*|SBATCH_.*|SRUN_.*|PMI.*|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_(ADDR|PORT)"
)
"""Variables of one job that another one must not inherit."""
UNCONFIGURED = "Could not establish a configuration source"
"""What SLURM's programs say where they are installed, but belong to no cluster."""


class SlurmError(RuntimeError):
    """SLURM refused, or is not here."""


def call(
    command: Sequence[str], timeout_s: float = TIMEOUT_S, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs to its end, however that is. Raises SlurmError if it does not come to it."""
    _find(command[0])
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, env=env)
    except subprocess.TimeoutExpired as error:
        raise SlurmError(f"{command[0]} gave no answer in {timeout_s:g} s") from error
    except OSError as error:
        raise SlurmError(f"{command[0]} cannot be run: {error.strerror}") from error


def said_by(result: subprocess.CompletedProcess[str]) -> str:
    """What a program has said, in one line."""
    return _in_one_line(result.stderr or result.stdout) or f"exit code {result.returncode}"


def submit(script: Path, options: Sequence[str] = ()) -> str:
    """Submit a batch script; returns the job id. Raises SlurmError."""
    result = call(["sbatch", "--parsable", *options, str(script)])
    job_id = _job_id(result.stdout)
    if not job_id:
        raise SlurmError(f"sbatch did not take the job: {said_by(result)}")
    return job_id


@contextmanager
def submitted(script: Path, options: Sequence[str] = ()) -> Iterator[tuple[str, Callable[[], int]]]:
    """Submit a batch script; gives the job id, and what waits for the job's end and returns its exit code."""
    _find("sbatch")
    command = ["sbatch", "--parsable", "--wait", *options, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:  # many sites have sbatch say something before
            if job_id := _job_id(line):
                break
            said += line
        else:
            raise SlurmError(f"sbatch did not take the job: {_in_one_line(said) or f'exit code {process.wait()}'}")
        yield job_id, process.wait


def start_estimate(script: Path, options: Sequence[str] = ()) -> str:
    """When and where the job would start, in SLURM's words. Raises SlurmError."""
    result = call(["sbatch", "--test-only", *options, str(script)])
    if result.returncode:
        raise SlurmError(f"sbatch would not take the job: {said_by(result)}")
    return said_by(result)


def requeue(env: Mapping[str, str]) -> str:
    """Ask for another start of the job that this process belongs to; returns why that is refused, "" if it is not.

    SLURM ends this process when it agrees.
    """
    result = call(["scontrol", "requeue", own_job(env)])
    return said_by(result) if result.returncode else ""


def submit_again(script: Path, env: Mapping[str, str]) -> str:
    """Submit the script of the job that this process belongs to once more, to begin after it; returns the job id.

    For sites where a job may not be started again. Raises SlurmError.
    """
    options = [f"--dependency=afterany:{own_job(env)}"]
    options += [f"--array={env['SLURM_ARRAY_TASK_ID']}"] if "SLURM_ARRAY_JOB_ID" in env else []
    kept = {name: value for name, value in env.items() if not OF_THE_JOB.fullmatch(name) or name == "SLURM_CONF"}
    result = call(["sbatch", "--parsable", *options, str(script)], env=kept)
    job_id = _job_id(result.stdout)
    if not job_id:
        raise SlurmError(f"sbatch did not take it: {said_by(result)}")
    return job_id


def own_job(env: Mapping[str, str]) -> str:
    """The id of the job that this process belongs to; of a task of an array, by array and index."""
    if "SLURM_ARRAY_JOB_ID" in env:
        return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return env["SLURM_JOB_ID"]


def _job_id(printed: str) -> str:
    """Of `--parsable`: the id, and the name of the cluster behind a semicolon where there are several."""
    found = re.search(r"^(\d+)(;.*)?$", printed, re.MULTILINE)
    return found[1] if found else ""


def _find(program: str) -> None:
    if shutil.which(program) is None:
        raise SlurmError(f"there is no program {program} here: run this on a login node of the cluster")


def _in_one_line(text: str) -> str:
    said = " ".join(text.split())
    return f"{said}; is this a login node of the cluster?" if UNCONFIGURED in said else said
