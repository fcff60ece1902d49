"""`from jobs.process import BaseExtensionProcess`: what processes in the folder style of ai-toolkit inherit from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.job import Job


class BaseExtensionProcess:
    """Reads its own keys; made as `Process(process_id, job, config)`."""

    def __init__(self, process_id: int, job: Job, config: Mapping[str, Any]) -> None:
        self.process_id = process_id
        self.job = job
        self.config = config
        self.name = self.get_conf("name", job.name)
        self.meta: dict[str, Any] = dict(job.meta)
        self.performance_log_every: int = self.get_conf("performance_log_every", 0)

    def get_conf(
        self, key: str, default: Any = None, required: bool = False, as_type: Callable[[Any], Any] | None = None
    ) -> Any:
        """The value at a dotted key; an explicit null counts as missing."""
        found: Any = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            if required:
                raise ValueError(f"config.process.{self.process_id}: '{key}' is required")
            return default
        return found if as_type is None else as_type(found)

    def add_meta(self, additional_meta: Mapping[str, Any]) -> None:
        """Add to the metadata that is written into saved files."""
        self.meta.update(additional_meta)

    def run(self) -> None:
        """Sub-classes do their work here; calling this one first is allowed."""

    def on_error(self, error: BaseException) -> None:
        """Sub-classes let go here of what they hold outside `run`; calling this one too is allowed."""
