"""Failures that a user can do something about, each explained in one sentence that names the key to change.

Any exception may bring its own advice in an attribute `hint`. Errors of libraries are told by class name and text, so
that nothing has to be imported in order to explain an error of it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_MEMORY_TEXTS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
_OFFLINE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "MaxRetryError"}


class RunFailed(Exception):
    """A failure of a run, told in one sentence that names the key to change; the cause is the original error."""


@contextmanager
def explained(context: Mapping[str, Any]) -> Iterator[None]:
    """Turn known failures inside the block into RunFailed; `context` is that of `explain`."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError, ValueError) as error:
        sentence = explain(error, context)
        if sentence is None:
            raise
        raise RunFailed(sentence) from error


def explain(error: BaseException, context: Mapping[str, Any]) -> str | None:
    """Return one sentence on what happened and which key to change, or None if this error is not known here.

    `context` says what the run was doing, as far as the caller knows: step, batch_size, resolution, quantize,
    gradient_checkpointing, optimizer, folder, model.
    """
    is_told = False
    for cause in _chain(error):
        hint = getattr(cause, "hint", None)
        if isinstance(hint, str):
            return f"{str(cause).rstrip('.')}: {hint}"
        # a ValueError over an error of the Hub says which of the models it is about
        is_told = is_told or type(cause) is ValueError
        for kind in (_memory, _disk) if is_told else (_memory, _disk, _hub):
            sentence = kind(cause, context)
            if sentence is not None:
                return sentence
    return None


def _memory(error: BaseException, context: Mapping[str, Any]) -> str | None:
    """Explain a full GPU or full RAM by the cheapest thing that is not yet done about it."""
    full = isinstance(error, MemoryError) or "OutOfMemoryError" in _names(error)
    if not full and not (isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS)):
        return None
    on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error) or "can't allocate" in str(error)
    return f"{'RAM' if on_cpu else 'GPU memory'} ran out{_when(context)}: {_smaller(context)}."


def _smaller(context: Mapping[str, Any]) -> str:
    """Name the first key that would save memory, those that cost nothing in quality first."""
    if context.get("gradient_checkpointing") is False:
        return "set train.gradient_checkpointing: true"
    batch_size = context.get("batch_size") or 1
    if batch_size > 1:
        return (
            f"lower train.batch_size (now {batch_size}) and raise train.gradient_accumulation by as much, "
            "which gives the same training"
        )
    if context.get("quantize") is False:
        return "set model.quantize: true"
    if context.get("optimizer") == "adamw":
        return "set train.optimizer: adamw8bit"
    resolution = context.get("resolution")
    return f"lower datasets.resolution{f' (now {resolution})' if resolution else ''}"


def _disk(error: BaseException, context: Mapping[str, Any]) -> str | None:
    """Explain a full disk or quota."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    if not full and "No space left on device" not in str(error):
        return None
    place = getattr(error, "filename", None) or context.get("folder")
    return (
        f"the disk is full{f' at {place}' if place else ''}{_when(context)}; all earlier saves are whole: free space, "
        "lower save.max_step_saves_to_keep, or set training_folder to another disk, then start again to resume."
    )


def _hub(error: BaseException, context: Mapping[str, Any]) -> str | None:
    """Explain a model that the Hugging Face Hub does not give."""
    names = _names(error)
    model = context.get("model") or "the model"
    if "GatedRepoError" in names:
        return (
            f"{model} is gated: accept its license on huggingface.co and set the environment variable HF_TOKEN, or set "
            "model.name_or_path to a model that you have access to."
        )
    if "RepositoryNotFoundError" in names:
        return (
            f"{model} is neither a folder here nor a repository on huggingface.co that you may see: "
            "correct model.name_or_path, or set the environment variable HF_TOKEN if it is private."
        )
    if names & _OFFLINE:
        return (
            f"huggingface.co cannot be reached and {model} is not in the local cache: go online once, or set "
            "model.name_or_path to a folder that holds it."
        )
    return None


def _when(context: Mapping[str, Any]) -> str:
    return f" at step {context['step']}" if context.get("step") is not None else ""


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, then what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
