"""The launchers that `launch.type` can name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from toolkit.config.plugins import LauncherPlugin, Remarked
from toolkit.config.section import Section, works
from toolkit.launch.flags import why_not
from toolkit.launch.limits import MEMORY, TIME, gpus_in, seconds_of
from toolkit.launch.profiles import read_profile

if TYPE_CHECKING:
    from toolkit.config.document import Document
    from toolkit.launch.launcher import Launcher

VARIABLE = re.compile(r"[A-Za-z_]\w*")
LIKE_GPUS = re.compile(r"gpus?([:= ].*)?", re.IGNORECASE)
ONE_LINE = (
    "account",
    "partition",
    "qos",
    "reservation",
    "gres",
    "constraint",
    "exclude",
    "mail",
    "dependency",
)
"""Texts that become one line of the head of the batch script each."""


class Local(LauncherPlugin):
    """On this machine, in one process per GPU."""

    type: Literal["local"] = works("local", "On this machine.")
    gpus: int = works(1, "How many GPUs train together; the batch size is that of each.", ge=1)

    def build(self, job: Any) -> Launcher:
        """What starts the processes."""
        from extensions_built_in.launchers.local import LocalRanks

        return LocalRanks(self.gpus, job)


class Container(Section):
    """`launch.container`: run inside an image, by the Pyxis plugin of SLURM."""

    image: str = works(..., "The image, as `srun --container-image` takes it.", min_length=1)
    mounts: list[str] = works(
        [], "Folders that are seen inside beside those of aitk, its results and the job: `/data:/data`."
    )


class Slurm(LauncherPlugin):
    """On a SLURM cluster: a batch job that goes on by itself when its time is up."""

    type: Literal["slurm"] = works("slurm", "On a SLURM cluster.")
    profile: str | None = works(
        None,
        "Name of a site profile, whose keys hold where they are not given; without it: `default`, if there is one.",
    )
    account: str | None = works(None, "Who pays.")
    partition: str | None = works(None, "Queue.")
    qos: str | None = works(None, "Quality of service.")
    reservation: str | None = works(None, "Reservation.")
    nodes: int = works(1, "Machines.", ge=1)
    gpus_per_node: int = works(
        1,
        "GPUs of each machine, with one process per GPU; 0: one process, no GPU. With `gres`: as many as that names.",
        ge=0,
    )
    gres: str | None = works(None, "Asks for the GPUs in this way instead, where a site wants it: `gpu:a100:4`.")
    cpus_per_task: int | None = works(None, "CPU cores per process.", ge=1)
    mem: str | None = works(None, "Memory per machine: `64G`; `0` is all of it; a number alone counts MB.")
    time: str | None = works(None, "Time limit of one start: `12:00:00`, `2-00:00:00`, or minutes.")
    constraint: str | None = works(None, "Features that the machines must have.")
    exclude: str | None = works(None, "Machines to stay away from.")
    mail: str | None = works(None, "Where SLURM writes when the job begins, ends, fails or is started again.")
    dependency: str | None = works(None, "What has to happen before: `afterok:1234`.")
    requeue: bool = works(True, "Go on in a new start when the time is up, or after the machine was taken away.")
    max_requeues: int = works(100, "At most so many of them.", ge=0, le=10_000)
    signal: Literal["USR1", "USR2"] = works(
        "USR2", "The signal before the end of the time; the other one where a library needs this one."
    )
    signal_lead_s: int = works(
        180, "So many seconds before the end of the time the run saves and stops.", ge=1, le=65_535
    )
    array_parallelism: int | None = works(None, "Of a sweep, at most so many runs at a time.", ge=1)
    torchrun: bool = works(False, "Start the processes of a machine by torchrun instead of one task of SLURM each.")
    stage_caches: bool = works(False, "Copy what is read of the caches to the disk of each machine, once.")
    container: Container | None = works(None, "An image to run in.")
    modules: list[str] = works([], "Environment modules to load.")
    venv: str | None = works(None, "Folder of a virtual environment to activate; default: the Python that submits.")
    env: dict[str, str] = works({}, "Environment variables.")
    setup: list[str] = works([], "Shell lines before the command.")
    teardown: list[str] = works([], "Shell lines after it.")
    extra: dict[str, Any] = works({}, "Any other flag of sbatch: `{exclusive: true, licenses: foo}`.")

    @classmethod
    def site_defaults(cls, data: Mapping[str, Any]) -> Document | None:
        """The site profile, without what it says of GPUs if the config asks for them, by either of the two keys."""
        name = data.get("profile")
        site = read_profile(None if name is None else str(name))
        if site is not None and (data.get("gpus_per_node") is not None or gpus_in(str(data.get("gres"))) is not None):
            site.data.pop("gpus_per_node", None)
            if gpus_in(str(site.data.get("gres"))) is not None:
                site.data.pop("gres")
        return site

    @field_validator("time", "mem", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("time")
    @classmethod
    def _check_time(cls, value: str | None) -> str | None:
        if value is not None and not TIME.fullmatch(value):
            raise ValueError("must be a time as sbatch takes it: 12:00:00, 2-00:00:00, or minutes")
        return value

    @field_validator("mem")
    @classmethod
    def _check_mem(cls, value: str | None) -> str | None:
        if value is not None and not MEMORY.fullmatch(value):
            raise ValueError("must be a size as sbatch takes it: 64G, 64000M, or 0 for all of it")
        return value

    @field_validator(*ONE_LINE)
    @classmethod
    def _check_line(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or "\n" in value):
            raise ValueError("must be one line of text")
        return value

    def contradictions(self) -> Iterator[Remarked]:
        """Keys that do not fit together, and flags that are none."""
        limit = seconds_of(self.time) if self.time else None
        if limit is not None and limit <= self.signal_lead_s:
            if "signal_lead_s" in self.model_fields_set:
                yield ("signal_lead_s",), f"must be less than the time of a start, {limit} s"
            else:
                yield ("time",), f"is {limit} s; it must be more than launch.signal_lead_s, {self.signal_lead_s} s"
        for part in (self.gres or "").split(","):
            if LIKE_GPUS.fullmatch(part.strip()) and gpus_in(part) is None:
                yield ("gres",), f"'{part.strip()}' asks for no GPU; write gpu:4, or gpu:a100:4"
        asked = gpus_in(self.gres) if self.gres else None
        if asked is not None and "gpus_per_node" in self.model_fields_set and self.gpus_per_node != asked:
            yield ("gpus_per_node",), f"is {self.gpus_per_node}, but gres asks for {asked}; one of them is enough"
        for name in self.env:
            if not VARIABLE.fullmatch(name):
                yield ("env", name), "cannot be the name of an environment variable"
        for name, value in self.extra.items():
            if reason := why_not(name, value):
                yield ("extra", name), reason

    @property
    def gpus(self) -> int:
        """GPUs of each machine."""
        asked = gpus_in(self.gres) if self.gres else None
        return self.gpus_per_node if asked is None else asked

    def build(self, job: Any) -> Launcher:
        """What submits the job."""
        from extensions_built_in.launchers.slurm import SlurmJob

        return SlurmJob(self, job)
