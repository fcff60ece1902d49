"""How trained weights are used elsewhere: lines of Python for diffusers, a sentence for ComfyUI.

The last lines of a run and its model card are made of the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

HERE = '"."'
"""The place of the weights in the model card of a run folder; `uploaded` puts the repository there."""
HERE_NOTE = "  # the folder of this file"


@dataclass(frozen=True)
class Saved:
    """A saved file or folder, and how diffusers takes it."""

    name: str
    kind: Literal["lora", "file", "folder", "embedding"] = "lora"
    """A LoRA; all weights of a part in one file; a folder with a subfolder for the part; or an embedding."""
    part: str = "transformer"
    word: str = ""
    """Of an embedding: the word in the prompt."""
    encoders: tuple[tuple[str, str, str], ...] = ()
    """Of an embedding: name of the vectors in the file, text encoder and tokenizer that get them."""


@dataclass(frozen=True)
class Usage:
    """What the lines of Python need to know. Values of `options` become arguments of the pipeline."""

    pipeline: str
    base_model: str
    """Folder, single file or Hub id."""
    saved: Sequence[Saved]
    dtype: str = "bfloat16"
    """The precision to load the base model in, as torch calls it."""
    prompt: str = "your prompt"
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int | None = None
    """With it and its prompt, most families make the picture that the run made."""
    fps: int = 0
    """Frames per second of a video; 0: the pipeline makes pictures."""
    pictures: Sequence[str] = ()
    """Arguments of the pipeline that are pictures."""


def python_lines(usage: Usage, place: str) -> list[str]:
    """Lines of Python that make one picture or video; `place` is the folder or repository that holds the weights."""
    functions = [*(["export_to_video"] if usage.fps else []), *(["load_image"] if usage.pictures else [])]
    loader = "from_single_file" if usage.base_model.endswith(".safetensors") else "from_pretrained"
    base = f"{_quoted(usage.base_model)}, dtype=torch.{usage.dtype}"
    return [
        "import torch",
        f"from diffusers import {usage.pipeline}",
        *([f"from diffusers.utils import {', '.join(functions)}"] if functions else []),
        *(["from safetensors.torch import load_file"] if _reads_files(usage) else []),
        "",
        f"pipe = {usage.pipeline}.{loader}({base})",
        *(line for saved in usage.saved for line in _load(saved, place, usage.dtype)),
        'pipe.to("cuda" if torch.cuda.is_available() else "cpu")',
        *_call(usage),
    ]


def comfyui_text(saved: Sequence[Saved]) -> str:
    """Where ComfyUI wants the files of LoRAs and embeddings; "" for other files."""
    loras = [one.name for one in saved if one.kind == "lora"]
    nodes = "a LoRA loader" if len(loras) == 1 else "LoRA loaders, one for each of the two models"
    texts = [f"copy {' and '.join(loras)} to ComfyUI/models/loras/ and choose it in {nodes}"] if loras else []
    for one in saved:
        if one.kind == "embedding":
            where, asked = "ComfyUI/models/embeddings/", f"embedding:{one.name.rpartition('.')[0]}"
            texts.append(f"copy {one.name} to {where} and write {asked} into the prompt")
    return f"{'; '.join(texts)}." if texts else ""


def uploaded(text: str, repository: str) -> str:
    """A text with `python_lines` of the place "." as it reads in a repository of the Hub."""
    return text.replace(f"({HERE},", f"({_quoted(repository)},").replace(HERE_NOTE, "")


def _reads_files(usage: Usage) -> bool:
    """Whether weights are read before diffusers gets them."""
    return any(saved.kind in ("file", "embedding") for saved in usage.saved)


def _load(saved: Saved, place: str, dtype: str) -> list[str]:
    where, name = _quoted(place), _quoted(saved.name)
    note = HERE_NOTE if where == HERE else ""
    if saved.kind == "lora":
        more = ", load_into_transformer_2=True" if saved.part == "transformer_2" else ""
        return [f"pipe.load_lora_weights({where}, weight_name={name}{more}){note}"]
    part = f"pipe.{saved.part}"
    # a file of the Hub has to be there already, whatever the place
    file = f"load_file({_quoted(saved.name if where == HERE else f'{place}/{saved.name}')})"
    if saved.kind == "file":
        return [f"{part}.load_state_dict({file})"]
    if saved.kind == "embedding":
        begin = f"pipe.load_textual_inversion(word[{{}}], token={_quoted(saved.word)}, "
        end = "text_encoder=pipe.{}, tokenizer=pipe.{})"
        calls = [(begin + end).format(_quoted(key), *parts) for key, *parts in saved.encoders]
        return [f"word = {file}", *calls]
    subfolder = _quoted(f"{saved.name}/{saved.part}")
    return [f"{part} = type({part}).from_pretrained({where}, subfolder={subfolder}, dtype=torch.{dtype}){note}"]


def _call(usage: Usage) -> list[str]:
    """The call of the pipeline, an argument per line, and how the result is written."""
    arguments = [f"prompt={_quoted(usage.prompt)}"]
    arguments += [f'{name}=load_image("{name}.png")' for name in usage.pictures]
    arguments += [f"{key}={_quoted(value)}" for key, value in usage.options.items()]
    if usage.seed is not None:
        arguments.append(f"generator=torch.Generator().manual_seed({usage.seed})")
    result = "frames[0]" if usage.fps else "images[0]"
    end = f'export_to_video(made, "video.mp4", fps={usage.fps})' if usage.fps else 'made.save("picture.png")'
    return ["made = pipe(", *(f"    {argument}," for argument in arguments), f").{result}", end]


def _quoted(value: object) -> str:
    """A literal of Python; texts in double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
