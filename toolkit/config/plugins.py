"""What an extension's config classes inherit from: one base per kind, each a Section with a build()."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from typing_extensions import Self

from toolkit.config.choice import chosen, load_plugin
from toolkit.config.section import Remarked, Section, works
from toolkit.config.sections.captioner import CaptionerPlugin, WritingCaptioner
from toolkit.config.sections.model import ModelPlugin
from toolkit.config.sections.network import NetworkPlugin

__all__ = [
    "JOB_KINDS",
    "CaptionerPlugin",
    "ModelPlugin",
    "NetworkPlugin",
    "OptimizerPlugin",
    "ProcessPlugin",
    "Remarked",
    "WritingCaptioner",
    "chosen",
    "load_plugin",
]

JOB_KINDS = ("extension", "train", "generate", "extract", "caption", "mod", "merge")


class ProcessPlugin(Section):
    """One entry of `config.process`."""

    jobs: ClassVar[tuple[str, ...]] = ("extension",)
    """The values of `job:` under which this process may run, a part of JOB_KINDS."""

    handed_down: ClassVar[Mapping[str, str]] = {}
    """Keys of the process that hold further inside too: {"trigger_word": "datasets.*.trigger_word"}."""

    type: str = works(..., "What to do: the process type.")
    name: str | None = works(None, "Folder of the results inside `training_folder`; default: the job's name.")

    def differences(self) -> Iterable[Remarked]:
        """What ai-toolkit would do otherwise with these values; said once at the start."""
        return ()

    def preflight(self) -> Iterable[Remarked]:
        """What on this machine keeps the process from running: missing folders, a full disk."""
        return ()

    def plan(self) -> list[str]:
        """What would be done, a few lines for `aitk check` and `aitk run --dry-run`."""
        return []

    def completed(self) -> Self:
        """The process with what its keys imply spelled out; done once, when a config has been read."""
        return self

    def preparations(self) -> "Iterable[ProcessPlugin]":
        """Processes that the job runs before this one, such as one that makes pictures to train on."""
        return ()

    @abstractmethod
    def build(self, job: Any) -> Any:
        """The process (jobs/process.py), ready to run. The first place where heavy imports are allowed."""


class OptimizerPlugin(Section):
    """One optimizer; its fields are the keys of `train.optimizer_params`."""

    @abstractmethod
    def build(self, params: Any, lr: float) -> Any:
        """A torch optimizer over `params`."""
