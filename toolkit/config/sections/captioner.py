"""`caption`: which pictures get captions, where these go, and which model writes them."""

import importlib.util
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from toolkit.config.names import suggestion
from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS
from toolkit.config.sections.model import Qtype
from toolkit.config.sections.values import Dtype

READABLE = IMAGE_ENDINGS | ANIMATION_ENDINGS | {".tif", ".tiff"}
"""What the picture reader opens; of an animation, the first frame."""
PLACEHOLDERS = ("caption", "filename", "folder", "trigger")
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
TEMPLATES = ("caption_prompt", "prefix", "suffix")


class CaptionerPlugin(Section):
    """What all captioners have: pictures in, caption files out. `build` makes the one that writes the text."""

    type: str = works(..., "Which captioner.")
    model_name_or_path: str = works(..., "Folder or Hub name of the model.")
    path_to_caption: str = works(..., "Folder of the pictures, with its sub-folders, or one picture.", min_length=1)
    extensions: list[str] = works([], "Endings of the pictures, such as [jpg, png]; default: all that can be read.")
    caption_extension: str = works(".txt", "Ending of the caption files, with or without dot.", min_length=1)
    jsonl: str | None = works(
        None, "aitk only. Write all captions into this file, one JSON object per line, and none beside the pictures."
    )
    recaption: bool = works(False, "Replace captions that are there; without it none is ever overwritten.")

    prefix: str = works("", "aitk only. Put before each caption as it is; may hold {trigger}, {filename}, {folder}.")
    suffix: str = works("", "aitk only. Put after each caption as it is.")
    trigger_word: str | None = works(None, "aitk only. What {trigger} stands for.")
    min_words: int = works(
        1, "aitk only. A caption of fewer words is asked for once more, then reported and not written.", ge=1
    )

    max_res: int = works(512, "Pictures with more than max_res x max_res pixels are scaled down to about that.", ge=16)
    batch_size: int = works(1, "Pictures per call of the model.", ge=1)
    num_workers: int = works(3, "Threads that read pictures ahead.", ge=1)
    device: str | None = works(None, "Where the model runs; default: the device of the process.")
    dtype: Dtype | None = works(None, "bf16, fp16 or fp32; default: bf16, on the CPU fp32.")
    quantize: bool = works(False, "Store the model's Linear weights in few bits.")
    qtype: Qtype = works("qfloat8", "Quantization type, as in `model.qtype`.")

    low_vram: bool = idle(False, "the model is quantized in CPU memory in any case", ui=True)
    model_name_or_path2: str | None = planned(None, "A second model, of captioners that need two.")
    compile: bool = planned(False, "Compile the model.")
    layer_offloading: bool = planned(False, "Keep layers in CPU memory.")
    layer_offloading_percent: Annotated[float, Field(ge=0, le=1)] = planned(
        1.0, "How many of them.", needs="layer_offloading"
    )

    @field_validator("extensions")
    @classmethod
    def _check_extensions(cls, value: list[str]) -> list[str]:
        endings = [f".{ending.lower().lstrip('.')}" for ending in value]
        if unknown := [ending for ending in endings if ending not in READABLE]:
            known = ", ".join(sorted(ending[1:] for ending in READABLE))
            raise ValueError(f"{', '.join(unknown)}: only pictures get captions ({known})")
        return endings

    @field_validator("caption_extension")
    @classmethod
    def _check_caption_extension(cls, value: str) -> str:
        ending = f".{value.lstrip('.')}"
        if ending.lower() in READABLE or ending == "." or "/" in ending or "\\" in ending:
            raise ValueError(f"'{value}' cannot be the ending of caption files")
        return ending

    @property
    def endings(self) -> frozenset[str]:
        """The endings of pictures that get captions."""
        return frozenset(self.extensions) or READABLE

    @property
    def prompt(self) -> str:
        """The template of what the model is asked; empty for a captioner that is asked nothing."""
        return ""

    @property
    def location(self) -> Path:
        """The folder or the picture."""
        return Path(self.path_to_caption).expanduser()

    def contradictions(self) -> Iterator[Remarked]:
        """Templates whose placeholders have no value."""
        for key in TEMPLATES:
            found = PLACEHOLDER.findall(getattr(self, key, ""))
            if "trigger" in found and not self.trigger_word:
                yield (key,), "holds {trigger}, but caption.trigger_word is not set"

    def differences(self) -> Iterator[Remarked]:
        """What is said once about values that are read differently from how they look."""
        for key in TEMPLATES:
            for name in PLACEHOLDER.findall(getattr(self, key, "")):
                if name not in PLACEHOLDERS:
                    yield (key,), f"{{{name}}} is no placeholder and stays as it is{suggestion(name, PLACEHOLDERS)}"
        if self.quantize and self.stored_as != self.qtype:
            yield ("qtype",), f"{self.qtype} needs torchao, which is not installed; read as {self.stored_as}"

    @property
    def stored_as(self) -> str:
        """The quantization type; ai-toolkit's default, a type of torchao, has a twin in quanto."""
        has_torchao = importlib.util.find_spec("torchao") is not None
        return self.qtype if has_torchao else {"float8": "qfloat8", "int8": "qint8"}.get(self.qtype, self.qtype)

    @abstractmethod
    def build(self, context: Any) -> Any:
        """The captioner (toolkit/captioning/captioner.py), loaded onto the device of `context`."""


class WritingCaptioner(CaptionerPlugin):
    """What captioners have that generate text token by token."""

    caption_prompt: str = works("", "What the model is asked; may hold {filename}, {folder}, {trigger}, {caption}.")
    max_new_tokens: int = works(128, "The longest caption, in tokens.", ge=1)
    min_new_tokens: int = works(0, "aitk only. The shortest caption, in tokens.", ge=0)
    num_beams: int = works(1, "aitk only. Beams of a beam search; 1 takes the likeliest token each time.", ge=1)
    repetition_penalty: float = works(1.0, "aitk only. Above 1: tokens that were there become less likely.", gt=0)
    temperature: float = works(0.0, "aitk only. Above 0: tokens are drawn at random, the higher the wilder.", ge=0)
    top_p: float = works(
        1.0, "aitk only. Draw from the likeliest tokens that have this probability together.", gt=0, le=1
    )
    seed: int = works(42, "aitk only. Seed of what is drawn, for each picture its own stream.", ge=0)

    @property
    def prompt(self) -> str:
        """The template of what the model is asked."""
        return self.caption_prompt

    def contradictions(self) -> Iterator[Remarked]:
        """Lengths and ways of searching that exclude each other."""
        yield from super().contradictions()
        if self.min_new_tokens > self.max_new_tokens:
            yield ("min_new_tokens",), f"is above max_new_tokens ({self.max_new_tokens})"
        if self.num_beams > 1 and self.temperature:
            yield ("num_beams",), "cannot be combined with temperature: beams take the likeliest tokens"
