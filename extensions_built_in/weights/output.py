"""What all processes have in common that write one file or folder of weights from others. Light."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from toolkit.config.embedded import EMBEDDED
from toolkit.config.plugins import ProcessPlugin, Remarked
from toolkit.config.preflight import HUB_ADDRESS, HUB_NAME
from toolkit.config.section import Section, idle, works
from toolkit.config.sections.values import Device, Dtype
from toolkit.networks.keys.summary import read_file_header

if TYPE_CHECKING:
    import torch


class WeightedFile(Section):
    """A file or model, and how much of it goes in."""

    path: str = works(..., "A file, a folder, or a name of the Hugging Face Hub.", min_length=1)
    weight: float = works(1.0, "How much of it goes in.")


def as_group(value: Any) -> Any:
    """A path alone stands for the group of keys with this path."""
    return {"path": value} if isinstance(value, str) else value


OneWeighted = Annotated[WeightedFile, BeforeValidator(as_group)]


class WritesWeights(ProcessPlugin):
    """Writes `output_path`; inherited by each process with the keys of what it reads."""

    output_path: str = works(..., "The file or folder that is written.", min_length=1)
    overwrite: bool = works(False, "aitk only. Replace what is at `output_path`.")
    save_dtype: Dtype | None = works(None, "Type of the numbers in the file; default: as they are in the input.")
    device: Device = works("auto", "Where singular values are computed: auto, cpu, mps, cuda or cuda:N.")
    training_folder: str | None = idle(None, "everything goes to output_path")

    @property
    def target(self) -> Path:
        """The output on this disk."""
        return Path(self.output_path).expanduser()

    @property
    def stored_as(self) -> torch.dtype | None:
        """Type of the numbers in the output; None: as they are in the input."""
        from toolkit.context import DTYPES

        return DTYPES[self.save_dtype] if self.save_dtype else None

    @abstractmethod
    def inputs(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """(key path, name) of everything that is read."""

    def preflight(self) -> Iterator[Remarked]:
        """Inputs that are missing or damaged, and an output that is there."""
        for path, name in self.inputs():
            if text := missing(name) or damaged(name):
                yield path, text
        if self.target.exists() and not self.may_replace():
            yield ("output_path",), f"{self.target} exists and is not replaced; set `overwrite: true`, or name another"

    def may_replace(self) -> bool:
        """Whether an existing output may be replaced."""
        return self.overwrite


def missing(name: str) -> str:
    """What is wrong with the name of an input; empty if nothing is."""
    path = Path(name).expanduser()
    if path.exists() or name.startswith(EMBEDDED) or HUB_ADDRESS.match(name):
        return ""
    is_path = re.match(r"[./~]", name)
    if not is_path and HUB_NAME.match(name) and not path.parent.is_dir():
        return ""
    where = "" if is_path else ", and it is no name of the Hugging Face Hub (owner/model)"
    return f"there is no file or folder {name}{where}"


def damaged(name: str) -> str:
    """What is wrong with the header of a .safetensors file; empty if nothing is, or if there is no such file."""
    path = Path(name).expanduser()
    if is_file_name(name) and path.is_file():
        try:
            read_file_header(path)
        except (OSError, ValueError) as error:
            return str(error)
    return ""


def is_file_name(name: str) -> bool:
    """Whether an output is a single file, by its ending."""
    return name.endswith(".safetensors")
