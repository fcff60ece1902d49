"""`save`: when and how results are written, and whether they are uploaded."""

import re
from collections.abc import Iterator
from typing import Literal

from toolkit.config.section import Remarked, Section, works
from toolkit.config.sections.values import Dtype

Included = Literal["samples", "config", "checkpoints", "state"]
REPOSITORY = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


class SaveSection(Section):
    """`save`."""

    dtype: Dtype = works("fp16", "Precision of saved weights.")
    save_every: int = works(1000, "Steps between two checkpoints; 0: only at the end.", ge=0)
    max_step_saves_to_keep: int = works(5, "Older checkpoints of this run are deleted.", ge=1)
    save_format: Literal["safetensors", "diffusers"] = works(
        "safetensors",
        "Of a full fine-tune: one safetensors file, or a diffusers folder. A LoRA is always a safetensors file.",
    )
    key_format: Literal["auto", "diffusers", "kohya", "comfyui", "original"] = works(
        "auto", "aitk only. Names of the layers in a LoRA file; auto: those that most programs read for this model."
    )
    push_to_hub: bool = works(
        False,
        "Upload the final weights, the model card and sample pictures to the Hugging Face Hub at the end. Whether that "
        "can work is checked before training starts.",
    )
    hf_repo_id: str | None = works(
        None, "Repository for `push_to_hub`: `owner/name`, or `name` for one of your own. Made if it is not there."
    )
    hf_private: bool = works(False, "Make that repository private.")
    hf_include: list[Included] = works(
        ["samples"],
        "aitk only. What is uploaded beside the final weights and the model card: `samples`, the pictures of the last "
        "step; `config`, the resolved config without secrets; `checkpoints`, those of earlier steps; `state`, the "
        "optimizer's.",
    )

    @property
    def uploaded(self) -> list[str]:
        """What is uploaded, in words."""
        words = {
            "samples": "sample pictures",
            "config": "config",
            "checkpoints": "checkpoints",
            "state": "optimizer state",
        }
        return ["final weights", "README.md", *(words[key] for key in words if key in self.hf_include)]

    def contradictions(self) -> Iterator[Remarked]:
        """An upload to nowhere."""
        if not self.push_to_hub:
            return
        if self.hf_repo_id is None:
            yield ("hf_repo_id",), "missing: push_to_hub needs the name of a repository, owner/name"
        elif not is_repository(self.hf_repo_id):
            yield ("hf_repo_id",), not_a_repository(self.hf_repo_id)


def is_repository(name: str) -> bool:
    """Whether the Hub allows the name of a repository, with or without its owner."""
    last = name.rpartition("/")[2]
    is_allowed = REPOSITORY.fullmatch(name) and not last.endswith((".", "-", ".git"))
    return bool(is_allowed) and "--" not in name and ".." not in name


def not_a_repository(name: str) -> str:
    """What is wrong with a name that `is_repository` refuses."""
    return (
        f"'{name}' is no name of a repository: owner/name, of letters, digits, '-', '_' and '.', without '--' and '..',"
        " not ending in '-', '.' or '.git'"
    )
