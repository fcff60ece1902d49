"""The shared keys of `model:` turned into parts: where they come from, their precision, what is done after loading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toolkit.config.sections.model import ModelPlugin
from toolkit.context import DTYPES, Context
from toolkit.models.parts import Parts
from toolkit.models.quantize import quantize
from toolkit.models.source import Source


def make_parts(
    model: ModelPlugin,
    context: Context,
    *,
    denoiser: str,
    text_encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    checkpointing: bool,
    prepare_denoiser: Callable[[Any], Any] = lambda module: module,
) -> Parts:
    """Parts of a family whose `model_index.json` names these parts (and "vae", "scheduler").

    The main text encoder, which `te_name_or_path` replaces, is the last of `text_encoders`.
    """
    vae = model.vae_path or model.extras_name_or_path
    texts = dict.fromkeys((*text_encoders, *tokenizers), model.extras_name_or_path)
    if model.te_name_or_path:
        texts |= {text_encoders[-1]: model.te_name_or_path, tokenizers[-1]: model.te_name_or_path}
    overrides = {"vae": vae, denoiser: model.unet_path, **texts}

    def prepare(module: Any) -> Any:
        module = prepare_denoiser(module)
        if model.quantize:
            quantize(module, model.qtype, context.device)
        if checkpointing:
            module.enable_gradient_checkpointing()
        return module

    quantize_texts = model.quantize if model.quantize_te is None else model.quantize_te
    prepared: dict[str, Callable[[Any], Any]] = {denoiser: prepare}
    if quantize_texts:
        prepared |= {text_encoders[-1]: lambda module: quantize(module, model.qtype_te, context.device)}
    source = Source(model.name_or_path, {name: root for name, root in overrides.items() if root})
    dtypes = _dtypes(model, text_encoders)
    if context.dtype == torch.float16 and source.config("vae").get("force_upcast"):
        dtypes.setdefault("vae", torch.float32)  # it overflows in fp16, says its configuration
    return Parts(source, context.device, context.dtype, dtypes=dtypes, prepare=prepared)


def _dtypes(model: ModelPlugin, text_encoders: tuple[str, ...]) -> dict[str, torch.dtype]:
    chosen = dict.fromkeys(text_encoders, model.te_dtype) | {"vae": model.vae_dtype}
    return {name: DTYPES[dtype] for name, dtype in chosen.items() if dtype}
