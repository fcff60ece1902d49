"""The model card of a run, README.md: metadata for the Hugging Face Hub, and what a stranger needs to know.

It says what is known and nothing else. The last line holds a digest, so that a card that somebody has edited is told
from one that may be written anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from toolkit.atomic import write_text
from toolkit.reporting.licenses import HUB, License
from toolkit.reporting.usage import HERE, Usage, comfyui_text, python_lines

SEAL = re.compile(r"\n<!-- written by aitk; (?P<digest>[0-9a-f]{16}); edit as you like, it then stays -->\n\Z")


@dataclass(frozen=True)
class Shown:
    """A picture or video of the card, by its path in the run folder."""

    path: str
    prompt: str


@dataclass(frozen=True)
class Base:
    """The model that was trained on."""

    name: str
    """For people: a Hub id, or the name of a folder or file without its path."""
    repository: str | None = None
    """Its Hub id, if it is there."""
    license: License = field(default_factory=License)
    where: str = ""
    """Where it is to be found, if not on the Hub."""


@dataclass(frozen=True)
class ModelCard:
    """What goes into a card; what is None or empty is left out."""

    title: str
    base: Base
    network: str | None
    """What kind of network was trained, "lora of rank 16"; None: the weights of the model itself."""
    files: Sequence[str]
    tags: Sequence[str] = ()
    pipeline_tag: str | None = None
    trigger: str | None = None
    usage: Usage | None = None
    no_usage: str = ""
    """Why there are no lines of Python."""
    shown: Sequence[Shown] = ()
    shown_how: str = ""
    """How the pictures were made, or why there are none."""
    sheet: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    limits: Sequence[str] = ()

    def metadata(self) -> dict[str, Any]:
        """The front matter, in the words of the Hub."""
        widget = [{"text": one.prompt or " ", "output": {"url": one.path}} for one in self.shown]
        entries = {
            **self.base.license.entries(),
            "base_model": self.base.repository,
            "base_model_relation": (self.network and "adapter") or "finetune" if self.base.repository else None,
            "pipeline_tag": self.pipeline_tag,
            "library_name": "diffusers" if self.usage else None,
            "tags": list(self.tags),
            "instance_prompt": self.trigger,
            "widget": widget,
        }
        return {key: value for key, value in entries.items() if value}

    def text(self) -> str:
        """The whole card, without a seal."""
        head = yaml.safe_dump(self.metadata(), sort_keys=False, allow_unicode=True, width=1000)
        parts = [
            f"# {self.title}",
            self._opening(),
            *self._pictures(),
            *self._prompt(),
            *self._diffusers(),
            *self._comfyui(),
            *self._license(),
            *self._training(),
            *self._limits(),
        ]
        return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"

    def _opening(self) -> str:
        repository = self.base.repository
        base = f"[{repository}]({HUB}/{repository})" if repository else f"`{self.base.name}`"
        base += f" ({self.base.where})" if self.base.where else ""
        what = f"{_spelled(self.network)} for {base}" if self.network else f"A full fine-tune of {base}"
        files = " and ".join(f"`{name}`" for name in self.files)
        return f"{what}, trained with aitk. The weights: {files}."

    def _pictures(self) -> list[str]:
        if not self.shown:
            return [self.shown_how] if self.shown_how else []
        return ["<Gallery />", *([self.shown_how] if self.shown_how else [])]

    def _prompt(self) -> list[str]:
        if self.trigger:
            text = f"Write `{self.trigger}` into the prompt: it is the word that the training was about."
        else:
            text = "There is no trigger word."
            text += " The prompts of the pictures show what it listens to." if self.shown else ""
        return ["## Prompt", text]

    def _diffusers(self) -> list[str]:
        if self.usage is None:
            return ["## Use it", self.no_usage] if self.no_usage else []
        code = "\n".join(python_lines(self.usage, HERE.strip('"')))
        return ["## Use it in diffusers", f"```python\n{code}\n```"]

    def _comfyui(self) -> list[str]:
        saved = self.usage.saved if self.usage else ()
        text = comfyui_text(saved)
        if not text:
            return []
        text = text[0].upper() + text[1:]
        for lora in [one.name for one in saved if one.kind == "lora"][:1]:
            text += " Begin with strength 1. If ComfyUI says that keys were not loaded,"
            text += f" `aitk lora convert {lora} --to comfyui` writes a file with the names it looks for."
        return ["## Use it in ComfyUI", text]

    def _license(self) -> list[str]:
        found, base = self.base.license, self.base.name
        if not found.source:
            text = (
                f"Not known. Nothing that aitk could read states the license of the base model, `{base}`, and this "
                "card claims none. Whoever shares or uses these weights has to look it up: what is made from a model "
                "is bound by the terms of that model."
            )
        else:
            title = f"[{found.title}]({found.link})" if found.link else f"`{found.title}`"
            text = (
                f"The base model, `{base}`, is under {title}, as {found.source} states. These weights are made from "
                "it, and that license is given here for them too; its terms hold for whoever shares or uses them."
            )
        return ["## License", f"{text} The rights in what it was trained on are not known to aitk."]

    def _training(self) -> list[str]:
        rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in self.facts.items()]
        parts = ["\n".join(["| | |", "| --- | --- |", *rows])] if rows else []
        if self.sheet:
            parts += ["A row for each prompt, a column for each step:", f"![samples]({self.sheet})"]
        return ["## Training", *parts] if parts else []

    def _limits(self) -> list[str]:
        return ["## Limits", "\n".join(f"- {line}" for line in self.limits)] if self.limits else []


def sealed(text: str) -> str:
    """A card with a last line that tells whether somebody has edited it since."""
    text = unsealed(text)
    return f"{text}\n<!-- written by aitk; {_digest(text)}; edit as you like, it then stays -->\n"


def unsealed(text: str) -> str:
    """A card without its seal."""
    return SEAL.sub("", text)


def is_untouched(text: str) -> bool:
    """Whether a card is as aitk wrote it."""
    match = SEAL.search(text)
    return match is not None and match["digest"] == _digest(text[: match.start()])


def write_card(path: Path, text: str) -> bool:
    """Write a card, unless somebody wrote or edited the one that is there; says whether it was written."""
    try:
        if not is_untouched(path.read_text(encoding="utf-8")):
            return False
    except FileNotFoundError:
        pass
    except UnicodeDecodeError:
        return False
    write_text(path, sealed(text))
    return True


def _digest(text: str) -> str:
    # line endings and spaces at the end change on the way through the Hub, git and editors
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _spelled(network: str | None) -> str:
    """The name of a kind of network as people write it."""
    names = {"lora": "LoRA", "lokr": "LoKr", "loha": "LoHa", "dora": "DoRA"}
    first, _, rest = (network or "").partition(" ")
    text = f"{names.get(first, first)} {rest}".rstrip()
    return f"A {text}" if first in names else text[:1].upper() + text[1:]
