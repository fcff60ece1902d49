"""The shared keys of `model:` turned into parts: where they come from, their precision, what is done after loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from toolkit.config.sections.model import ModelPlugin
from toolkit.context import DTYPES, Context
from toolkit.models.compiling import compile_module
from toolkit.models.hub import at_revision, is_single_file
from toolkit.models.parts import Parts, Plan
from toolkit.models.quantize import Quantization
from toolkit.models.quantized_cache import QuantizedCache
from toolkit.models.source import Source

BITS = {8: "qint8", 4: "qint4"}
"""`text_encoder_bits` -> quantization type."""


def make_parts(
    model: ModelPlugin,
    context: Context,
    *,
    denoiser: str | tuple[str, ...] = "transformer",
    text_encoders: tuple[str, ...] = ("text_encoder",),
    tokenizers: tuple[str, ...] = ("tokenizer",),
    checkpointing: bool,
    prepare_denoiser: Callable[[Any], Any] = lambda module: module,
    dtypes: Mapping[str, torch.dtype] = MappingProxyType({}),
    exclude: tuple[str, ...] = (),
    classes: Mapping[str, type] = MappingProxyType({}),
) -> Parts:
    """Parts of a family whose `model_index.json` names these parts (and "vae", "scheduler").

    The main text encoder, which `te_name_or_path` replaces, is the last of `text_encoders`. `dtypes`: what the family
    needs by default; the user's keys win. `exclude`: globs over the denoiser's layers that are never quantized.
    `classes`: the classes of parts that no library has. `prepare_denoiser` gets a denoiser that may be quantized.
    """
    denoisers = (denoiser,) if isinstance(denoiser, str) else denoiser
    source = _source(model, denoisers, text_encoders, tokenizers, classes)
    chosen = {**dtypes, **_dtypes(model, text_encoders)}
    if context.dtype == torch.float16 and source.has("vae") and source.config("vae").get("force_upcast"):
        chosen.setdefault("vae", torch.float32)  # it overflows in fp16, says its configuration

    def prepare(module: Any) -> Any:
        module = prepare_denoiser(module)
        if checkpointing:
            module.enable_gradient_checkpointing()
        return module

    plan = Plan(
        quantization=_quantization(model, context, model.qtype, exclude) if model.quantize else None,
        prepare=prepare,
        offload=model.layer_offloading_transformer_percent if model.offloads_layers else 0.0,
        finish=lambda module: _compiled(model, module),
    )
    plans = dict.fromkeys(denoisers, plan) | _text_plans(model, context, source, text_encoders)
    cache = QuantizedCache(context.cache, may_write=context.rank == 0) if context.cache is not None else None
    return Parts(source, context.device, context.dtype, dtypes=chosen, plans=plans, cache=cache)


def _source(
    model: ModelPlugin,
    denoisers: tuple[str, ...],
    text_encoders: tuple[str, ...],
    tokenizers: tuple[str, ...],
    classes: Mapping[str, type],
) -> Source:
    """Where each part comes from. Beside a single file, the other parts are those of `extras_name_or_path`."""
    is_file = is_single_file(model.name_or_path)
    vae = model.vae_path or model.extras_name_or_path
    texts = dict.fromkeys((*text_encoders, *tokenizers), model.extras_name_or_path)
    if model.te_name_or_path:
        texts[text_encoders[-1]] = model.te_name_or_path
        if not is_single_file(model.te_name_or_path):
            texts[tokenizers[-1]] = model.te_name_or_path
    overrides = {"vae": vae, denoisers[0]: model.unet_path, **texts}
    return Source(
        (model.extras_name_or_path or model.example) if is_file else model.name_or_path,
        {name: root for name, root in overrides.items() if root},
        revision=None if is_file else model.revision,
        checkpoint=at_revision(model.name_or_path, model.revision) if is_file else None,
        classes=classes,
    )


def _text_plans(
    model: ModelPlugin, context: Context, source: Source, text_encoders: tuple[str, ...]
) -> dict[str, Plan]:
    """What is done to the last, large text encoder that the checkpoint has."""
    main = next((name for name in reversed(text_encoders) if source.has(name)), None)
    if main is None:
        return {}
    qtype = BITS.get(model.text_encoder_bits, model.qtype_te)
    is_quantized = model.quantize if model.quantize_te is None else model.quantize_te
    share = model.layer_offloading_text_encoder_percent if model.offloads_layers else 0.0
    if model.low_vram and context.device.type != "cpu":
        share = share or 1.0
    quantization = _quantization(model, context, qtype, ()) if is_quantized or qtype != model.qtype_te else None
    return {main: Plan(quantization=quantization, offload=share)}


def _quantization(model: ModelPlugin, context: Context, qtype: str, exclude: tuple[str, ...]) -> Quantization:
    device = torch.device("cpu") if model.low_vram and qtype != "int4" else context.device
    return Quantization(qtype, (*exclude, *model.quantize_kwargs.exclude), device)


def _compiled(model: ModelPlugin, module: Any) -> Any:
    if not model.compile:
        return module
    return compile_module(
        module,
        by_block=model.block_compile,
        mode=model.compile_mode,
        fullgraph=model.compile_fullgraph,
        dynamic=model.compile_dynamic,
        num_variants=model.cache_size_limit,
    )


def _dtypes(model: ModelPlugin, text_encoders: tuple[str, ...]) -> dict[str, torch.dtype]:
    chosen = dict.fromkeys(text_encoders, model.te_dtype) | {"vae": model.vae_dtype}
    return {name: DTYPES[dtype] for name, dtype in chosen.items() if dtype}
