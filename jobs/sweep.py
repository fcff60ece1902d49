"""Several jobs that one config stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.job import Job
from toolkit import config as configs
from toolkit.launch.launcher import Array
from toolkit.launch.sweep import Run, SweepFolder

if TYPE_CHECKING:
    from toolkit.config.plugins import LauncherPlugin
    from toolkit.config.sweep import Point


@dataclass(frozen=True)
class Sweep:
    """The jobs of a sweep, in the order of their numbers."""

    name: str
    folder: SweepFolder
    points: Sequence[Point]
    jobs: Sequence[Job]
    notices: Sequence[str]

    @property
    def launcher(self) -> LauncherPlugin | None:
        """Where they run, which is the same for all."""
        return self.jobs[0].launcher

    def runs(self) -> list[Run]:
        """What is written down about each."""
        return [
            Run(point.index, point.values, configs.to_yaml(job))
            for point, job in zip(self.points, self.jobs, strict=True)
        ]

    def results(self) -> list[Path]:
        """Files and folders that the runs make."""
        return [self.folder.path, *(path for job in self.jobs for path in job.results())]

    def array(self, indices: Sequence[int]) -> Array:
        """Some of the runs, for a launcher that starts them together."""
        inside = self.own_folder(0).relative_to(self.folder.run_folder(0))
        return Array(self.name, self.folder.path, tuple(indices), "" if inside == Path() else str(inside))

    def own_folder(self, index: int) -> Path:
        """Where the results of a run go: its folder in the sweep, or one in it if its process has a name."""
        for process in self.jobs[index].processes:
            if training_folder := getattr(process, "training_folder", None):
                return Path(training_folder).expanduser() / (process.name or self.jobs[index].name)
        return self.folder.run_folder(index)
