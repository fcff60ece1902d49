"""What an extension's config classes inherit from: one base per kind, each a Section with a build()."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import Self

from toolkit.config.choice import chosen, load_plugin
from toolkit.config.section import Remarked, Section, works
from toolkit.config.sections.captioner import CaptionerPlugin, WritingCaptioner
from toolkit.config.sections.model import ModelPlugin
from toolkit.config.sections.network import NetworkPlugin

if TYPE_CHECKING:
    from toolkit.config.document import Document

__all__ = [
    "JOB_KINDS",
    "CaptionerPlugin",
    "LauncherPlugin",
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

    shares_out: ClassVar[bool] = False
    """Whether several ranks do the process together; otherwise only the first of them does it."""

    trains: ClassVar[bool] = False
    """Whether it saves its steps in `<training_folder>/<name>`, and each start goes on at the last one."""

    handed_down: ClassVar[Mapping[str, str]] = {}
    """Keys of the process that hold further inside too: {"trigger_word": "datasets.*.trigger_word"}."""

    of_config: ClassVar[tuple[str, ...]] = ()
    """Keys of the process that may stand beside `process` too, for all processes of the job."""

    type: str = works(..., "What to do: the process type.")
    name: str | None = works(None, "Folder of the results inside `training_folder`; default: the job's name.")

    def differences(self) -> Iterable[Remarked]:
        """What ai-toolkit would do otherwise with these values; said once at the start."""
        return ()

    def preflight(self) -> Iterable[Remarked]:
        """What on this machine keeps the process from running: missing folders, a full disk."""
        return ()

    def preflight_online(self) -> Iterable[Remarked]:
        """What a service on the network has against it; asked last, and only if the job is to be run."""
        return ()

    def plan(self) -> list[str]:
        """What would be done, a few lines for `aitk check` and `aitk run --dry-run`."""
        return []

    def filled(self) -> list[Path]:
        """Folders that fill while it works: a start that put nothing there was in vain, and is not repeated."""
        return []

    def results(self, job: str) -> list[Path]:
        """Files and folders that it makes, which a job after it may name; `job` is the name of its own."""
        named = [getattr(self, key, None) for key in ("output_path", "output_folder")]
        folder = getattr(self, "training_folder", None)
        named += [Path(folder, self.name or job)] if folder else []
        return [Path(each).expanduser() for each in named if each]

    def card(self, job: Any) -> str:
        """The model card that would be uploaded, as far as it is known before; "" if none would be."""
        return ""

    def completed(self) -> Self:
        """The process with what its keys imply spelled out; done once, when a config has been read."""
        return self

    def preparations(self) -> "Iterable[ProcessPlugin]":
        """Processes that the job runs before this one, such as one that makes pictures to train on."""
        return ()

    @abstractmethod
    def build(self, job: Any) -> Any:
        """The process (jobs/process.py), ready to run. The first place where heavy imports are allowed."""


class LauncherPlugin(Section):
    """`config.launch`: where a job runs."""

    type: str = works("local", "Where: on this machine, or on a cluster.")

    @classmethod
    def site_defaults(cls, data: Mapping[str, Any]) -> "Document | None":
        """Keys that hold at this site where `data`, those of a config, lack them; ValueError if they cannot be read."""
        return None

    @abstractmethod
    def build(self, job: Any) -> Any:
        """What starts the job elsewhere (toolkit/launch/launcher.py); it must not import torch."""


class OptimizerPlugin(Section):
    """One optimizer; its fields are the keys of `train.optimizer_params`."""

    @abstractmethod
    def build(self, params: Any, lr: float) -> Any:
        """A torch optimizer over `params`."""
