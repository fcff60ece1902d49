"""Models and processors of transformers from a folder or the Hub, quantized if wished; errors say what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from toolkit.captioning.writing import Writing, settle_generation
from toolkit.config.errors import naming
from toolkit.config.plugins import CaptionerPlugin, WritingCaptioner
from toolkit.context import Context
from toolkit.models.hub import Root
from toolkit.models.quantize import Quantization, quantize
from toolkit.models.wrapped import move

T = TypeVar("T")
NAME = "caption.model_name_or_path"
HEADS = ("*lm_head*", "*cls.predictions*", "*classifier*")
"""Layers that choose the words or tags: small, and the first to suffer from few bits."""


def read_config(section: CaptionerPlugin, kinds: Collection[str]) -> dict[str, Any]:
    """The model's config.json, which has to be of one of the `kinds` of transformers."""
    name = section.model_name_or_path
    with naming(NAME):
        config = json.loads(Root(name).file("config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type")
    if kinds and kind not in kinds:
        raise ValueError(f"{name} is a '{kind}' of transformers; {section.type} takes {', '.join(sorted(kinds))}")
    return dict(config)


def load_part(cls: Any, section: CaptionerPlugin, **options: Any) -> Any:
    """A tokenizer or image processor of the model."""
    name = section.model_name_or_path
    return _loaded(lambda: cls.from_pretrained(Root(name).location, **options), name)


def load_model(cls: Any, section: CaptionerPlugin, context: Context, **options: Any) -> Any:
    """A frozen model on the device: read into CPU memory, quantized there block by block, then moved."""
    name = section.model_name_or_path
    model = _loaded(lambda: cls.from_pretrained(Root(name).location, dtype=context.dtype, **options), name)
    model = model.eval().requires_grad_(False)
    return move(_quantized(model, section), context.device)


def load_writer(
    name: str,
    kinds: Collection[str],
    section: WritingCaptioner,
    context: Context,
    parts: Sequence[str] = ("AutoImageProcessor", "AutoTokenizer"),
) -> tuple[Any, ...]:
    """(model, each of `parts`, how it writes); `name` and `parts` are classes of transformers.

    Raises ValueError if the checkpoint is not of one of the `kinds`.
    """
    import transformers

    read_config(section, kinds)
    loaded = [load_part(getattr(transformers, part), section) for part in parts]
    model = load_model(getattr(transformers, name), section, context)
    return settle_generation(model), *loaded, Writing.of(section)


def _quantized(model: nn.Module, section: CaptionerPlugin) -> nn.Module:
    if not section.quantize:
        return model
    qtype = section.stored_as
    try:
        return quantize(model, Quantization(qtype, HEADS))
    except (RuntimeError, ValueError) as error:
        reason = error.__cause__ or error
        raise ValueError(
            f"caption.qtype: {section.model_name_or_path} cannot be stored as {qtype}: {reason}"
        ) from error


def _loaded(load: Callable[[], T], name: str) -> T:
    try:
        with _without_advice():
            return load()
    except OSError as error:
        raise ValueError(
            f"{NAME}: {name} cannot be loaded: {' '.join(str(error).split())}; run `hf download {name}` where there is "
            "a connection, or name a folder that has all files of the model"
        ) from error


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep transformers' bars and remarks for its developers out of the log."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()


def on_device(inputs: Any, model: Any) -> dict[str, Any]:
    """Tensors where the model computes, floats in its precision."""
    device, dtype = next(model.parameters()).device, model.dtype
    tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    return {
        name: value.to(device, dtype if value.is_floating_point() else value.dtype) for name, value in tensors.items()
    }
