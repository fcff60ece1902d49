"""One job: a checked config and the processes that it runs in order."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.contract import Holding, Process, Stopped
from toolkit.launch.environment import own_rank
from toolkit.registry import get_registry

if TYPE_CHECKING:
    from toolkit.config.document import Document
    from toolkit.config.plugins import LauncherPlugin, ProcessPlugin


class Job:
    """What `run_job` runs. `processes` are the checked configs; `process` holds what was built from them."""

    def __init__(
        self,
        name: str,
        kind: str,
        meta: Mapping[str, Any],
        document: Document,
        processes: Sequence[ProcessPlugin],
        notices: Sequence[str] = (),
        launcher: LauncherPlugin | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.meta = meta
        self.document = document
        self.processes = tuple(processes)
        self.notices = tuple(notices)
        self.launcher = launcher
        self.process: list[Process] = []

    @property
    def raw_config(self) -> OrderedDict[str, Any]:
        """The whole document, for processes in the folder style of ai-toolkit."""
        return OrderedDict(self.document.data)

    @property
    def config(self) -> OrderedDict[str, Any]:
        """The section `config` of the document, for processes in the folder style of ai-toolkit."""
        return OrderedDict(self.document.data["config"])

    @property
    def device(self) -> str:
        """`config.device` of the document, for processes in the folder style of ai-toolkit."""
        return str(self.config.get("device") or "cpu")

    @property
    def extensions(self) -> dict[str, str]:
        """From where the extensions in use came, without those built in."""
        return get_registry().origins()

    def results(self) -> list[Path]:
        """Files and folders that the processes make, which a job after this one may name."""
        return [path for plugin in self.processes for path in plugin.results(self.name)]

    def plan(self) -> list[str]:
        """What `run` would do, one line each."""
        lines = [f"job '{self.name}' ({self.kind})"]
        for index, plugin in enumerate(self.processes):
            lines.append(f"process {index}: {plugin.type}")
            for first in plugin.preparations():
                lines.append(f"  before it, {first.type}:")
                lines += [f"    {line}" for line in first.plan()]
            lines += [f"  {line}" for line in plugin.plan()]
        return lines

    def run(self) -> None:
        """Run the processes in order, each after its preparations; when one fails, those that were built hear of it.

        Of several ranks, only the first runs those that do not share their work out.
        """
        is_first = own_rank(os.environ) == 0
        for notice in self.notices:
            print(f"note: {notice}")
        try:
            for plugin in self.processes:
                before = [*plugin.preparations(), plugin]
                self.process += [each.build(self) for each in before if is_first or each.shares_out]
            for process in self.process:
                process.run()
        except Stopped:
            raise
        except BaseException as error:
            for process in self.process:
                if isinstance(process, Holding):
                    _tell(process, error)
            raise


def _tell(process: Holding, error: BaseException) -> None:
    """Call `on_error`; its own failure must not hide the first one."""
    try:
        process.on_error(error)
    except Exception as second:
        print(f"{type(process).__name__}.on_error failed: {type(second).__name__}: {second}", file=sys.stderr)
