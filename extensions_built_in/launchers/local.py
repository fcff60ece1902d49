"""`launch: {type: local}`: one process per GPU of this machine."""

from __future__ import annotations

import os
from typing import Any

from toolkit.launch.launcher import Order
from toolkit.launch.local import run_ranks


class LocalRanks:
    """Starts `gpus` processes that do the job together."""

    hands_over = False
    job_id = ""

    def __init__(self, gpus: int, job: Any) -> None:
        self.gpus, self.job = gpus, job

    def plan(self, order: Order) -> list[str]:
        """What would be started."""
        lines = [f"runs in {self.gpus} process{'es' * (self.gpus != 1)} on this machine, one per GPU"]
        for plugin in self.job.processes if self.gpus > 1 else ():
            if each := getattr(plugin, "samples_per_step", 0):
                lines.append(f"each step: {each} samples in each process, {each * self.gpus} in all")
            elif plugin.shares_out:
                lines.append(f"{plugin.type}: each process does its part of the work")
            else:
                lines.append(f"{plugin.type}: the first process does it alone")
        return lines

    def start(self, order: Order) -> int:
        """Have the job done; returns the exit code. ValueError if there are not so many GPUs."""
        if self.gpus > 1:
            from toolkit.context import check_devices

            for plugin in self.job.processes:
                check_devices(getattr(plugin, "device", "cpu") if plugin.shares_out else "cpu", self.gpus)
        return run_ranks(order.command, self.gpus, os.environ)
