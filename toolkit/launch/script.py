"""The batch script of a cluster job, as text: what is asked for, the environment, and the one command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.launch.flags import line

LAUNCHED = "slurm"
FIRST_PORT, NUM_PORTS = 20_000, 12_000
"""Ports outside of the range that the kernel gives to outgoing connections, 32768 to 60999."""
OWN_JOB = '"${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"'
"""Of an array, the id of a task alone may be that of the array."""
EXPANDED = re.compile(r"\$\{\w+(?::-[^{}]*)?\}")


class Shell(str):
    """Text in which the shell of the job puts in variables: `${NAME}`, `${NAME:-default}`."""


@dataclass(frozen=True)
class Script:
    """All that a batch script says."""

    options: Mapping[str, str | int | float | None]
    """Flags of sbatch without the dashes; None: a flag without a value."""
    command: Sequence[str]
    """What every task runs."""
    srun: Sequence[str] = ()
    """Options of srun beside the usual ones."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What aitk tells its tasks, in variables."""
    num_machines: int = 1
    is_contained: bool = False
    """Whether the tasks have none of SLURM's programs, so that the script has to ask for another start."""
    threads: int | None = None
    """OMP_NUM_THREADS; None: as many as a task has cores."""
    stages_caches: bool = False
    offline_after: str | None = None
    """A file whose presence says that a start before has loaded everything from the Hugging Face Hub."""
    modules: Sequence[str] = ()
    venv: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    setup: Sequence[str] = ()
    teardown: Sequence[str] = ()

    def text(self) -> str:
        """The script."""
        parts = [self._header(), self._environment(), self._site(), self._work()]
        return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"

    def _header(self) -> list[str]:
        return ["#!/bin/bash", *(line(name, value) for name, value in self.options.items())]

    def _environment(self) -> list[str]:
        threads = '"${SLURM_CPUS_PER_TASK:-1}"' if self.threads is None else str(self.threads)
        facts = {"AITK_LAUNCHED": LAUNCHED, **self.facts}
        lines = [
            "# each task learns its rank from SLURM; they meet at the first machine of the job",
            *(f"export {name}={word(value)}" for name, value in facts.items()),
            'export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
            f"export MASTER_PORT=$(({FIRST_PORT} + SLURM_JOB_ID % {NUM_PORTS}))",
            f"export OMP_NUM_THREADS={threads} PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1",
            'export TORCH_NCCL_ASYNC_ERROR_HANDLING=1 NCCL_DEBUG="${NCCL_DEBUG:-VERSION}"',
            'export AITK_LOCAL="${SLURM_TMPDIR:-${TMPDIR:-/tmp}}/aitk-$SLURM_JOB_ID"',
            f"trap '{self._removal()}' EXIT",
            'export TRITON_CACHE_DIR="$AITK_LOCAL/triton" TORCHINDUCTOR_CACHE_DIR="$AITK_LOCAL/inductor"',
        ]
        if self.is_contained:
            lines += ["# inside the image nothing can be asked of SLURM: a file of this name has the script do it"]
            lines += ['export AITK_AGAIN="$AITK_RUN_FOLDER/slurm/again-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"']
        lines += ['export AITK_STAGE="$AITK_LOCAL/caches"'] if self.stages_caches else []
        if self.offline_after is not None:
            known = f'[ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] && [ -e {word(self.offline_after)} ]'
            lines += ["# what an earlier start has loaded from the Hub is not asked for again", f"if {known}; then"]
            lines += ['    export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"', "fi"]
        return lines

    def _removal(self) -> str:
        """What is on local disks goes; when SLURM ends the job, others than the first: `toolkit/launch/requeue.py`."""
        own = 'rm -rf "$AITK_LOCAL"'
        each = f"timeout 60 srun --overlap --ntasks={self.num_machines} --ntasks-per-node=1 {own} 2> /dev/null"
        return own if self.num_machines == 1 else f"{own}; {each}"

    def _site(self) -> list[str]:
        lines = [f"module load {shlex.quote(module)} || exit 1" for module in self.modules]
        lines += [f"source {shlex.quote(str(Path(self.venv) / 'bin/activate'))} || exit 1"] if self.venv else []
        lines += [f"export {name}={word(value)}" for name, value in self.env.items()]
        return [*lines, *self.setup]

    def _work(self) -> list[str]:
        usual = ["srun", "--kill-on-bad-exit=1", "--wait=0", "--export=ALL", *self.srun]
        query = "--query-gpu=index,name,driver_version,memory.total --format=csv,noheader"
        again = [
            'if [ -e "$AITK_AGAIN" ]; then',
            '    rm -f "$AITK_AGAIN"',
            f"    scontrol requeue {OWN_JOB} && sleep 60  # which SLURM ends",
            "fi",
        ]
        return [
            'echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on $SLURM_JOB_NODELIST"',
            f"command -v nvidia-smi > /dev/null && nvidia-smi {query} && nvidia-smi topo -m",
            " ".join([shlex.join(usual), *map(word, self.command)]),
            "code=$?",
            *self.teardown,
            *(again if self.is_contained else []),
            "exit $code",
        ]


def word(text: str) -> str:
    """A word of a command as the shell takes it; of `Shell`, with its variables put in."""
    if not isinstance(text, Shell):
        return shlex.quote(text)
    begin, parts = 0, []
    for found in EXPANDED.finditer(text):
        parts += [_escaped(text[begin : found.start()]), found[0]]
        begin = found.end()
    return f'"{"".join(parts)}{_escaped(text[begin:])}"'


def _escaped(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)
