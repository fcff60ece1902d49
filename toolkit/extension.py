"""Processes in the folder style of ai-toolkit: `extensions/NAME/__init__.py` lists `Extension` classes.

`as_plugin` makes a plugin of such a class, so that they come through the same door as all others.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar

from pydantic import ConfigDict

from toolkit.config.plugins import ProcessPlugin


class Extension:
    """A process type of an extension folder; `uid` is what `type:` in YAML says."""

    uid: ClassVar[str]
    name: ClassVar[str]

    @classmethod
    def get_process(cls) -> Any:
        """Import and return the process class, made as `Process(process_id, job, config)`."""
        raise NotImplementedError(f"{cls.__name__} has no get_process()")


def as_plugin(extension: Any) -> type[ProcessPlugin]:
    """The plugin of an extension class: takes any keys, which its process reads for itself."""

    class FolderProcess(ProcessPlugin):
        """A process that checks its own keys."""

        model_config = ConfigDict(extra="allow")

        def build(self, job: Any) -> Any:
            """The process, made the way it was in ai-toolkit."""
            process_id = next(index for index, plugin in enumerate(job.processes) if plugin is self)
            keys = OrderedDict(job.config["process"][process_id])
            return extension.get_process()(process_id, job, keys)

    return FolderProcess
