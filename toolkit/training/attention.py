"""`train.attention_backend`: which of diffusers' attention kernels a denoiser uses."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def check_backend(name: str) -> None:
    """Raise ValueError if diffusers knows no kernels of that name."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    known = [backend.value for backend in AttentionBackendName]
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"train.attention_backend: there is none named '{name}'{meant} (diffusers has {', '.join(known)})"
        )


@contextmanager
def attention_by(name: str, models: Sequence[Any]) -> Iterator[None]:
    """Make models of diffusers use the kernels `name` inside the block. Raises ValueError if they cannot."""
    from diffusers.models.attention_dispatch import attention_backend

    if name.lower() == "native":
        yield
        return
    # choosing kernels for one model also makes them the choice of all others until this block ends
    with attention_backend("native"):
        for model in models:
            _choose(model, name.lower())
        yield


def _choose(model: Any, name: str) -> None:
    if not any(hasattr(getattr(layer, "processor", None), "_attention_backend") for layer in model.modules()):
        kind = type(model).__name__
        raise ValueError(f"train.attention_backend: {kind} does not let its attention be chosen; set it to native")
    try:
        with _unwarned():
            model.set_attention_backend(name)
    except (RuntimeError, ImportError) as error:
        raise ValueError(f"train.attention_backend: {name} cannot be used here: {error}") from error


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without the warning that backends are an experiment of diffusers."""
    log = logging.getLogger("diffusers.models.modeling_utils")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
