"""Quantized weights are really small, predict nearly the same, carry a LoRA, and failures are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_contract import loaded, loss_of, noise_like, rows_of, trained_lora
from optimum.quanto import QTensor, qfloat8, qint4, qint8

from toolkit.config.plugins import ModelPlugin
from toolkit.context import Context
from toolkit.models.conditions import collate
from toolkit.models.family import Family
from toolkit.models.loading import make_parts
from toolkit.models.quantize import QTYPES, quantize
from toolkit.models.source import Source
from toolkit.registry import get_registry

CPU = torch.device("cpu")
NEAR = {"qfloat8": 0.15, "qint8": 0.05, "qint4": 0.6}
"""Largest difference, of the mean size of a prediction."""
TIMES = torch.tensor([0.5, 0.25], dtype=torch.float64)


def flux_config(folder: Path, **keys: object) -> ModelPlugin:
    plugin = get_registry().load("models", "flux")
    return plugin.model_validate({"arch": "flux", "name_or_path": str(folder), **keys})


def build(folder: Path, cpu: Context, **keys: object) -> Family:
    return flux_config(folder, **keys).build(cpu, checkpointing=False, bypass_guidance=False)


@pytest.mark.parametrize("qtype", QTYPES)
def test_a_quantized_flux_predicts_nearly_the_same_and_trains_a_lora(tiny_flux: Path, cpu: Context, qtype: str):
    with loaded(build(tiny_flux, cpu, quantize_te=False)) as plain, torch.no_grad():
        rows = rows_of(plain)
        wanted = plain.predict(noise_like(plain), TIMES, collate(rows))
    with loaded(build(tiny_flux, cpu, quantize=True, qtype=qtype, quantize_te=False)) as family:
        layers = {
            name: layer
            for name, layer in family.denoiser.named_modules()
            if isinstance(layer, torch.nn.Linear) and "blocks." in name
        }
        kinds = {"qfloat8": qfloat8, "qint8": qint8, "qint4": qint4}
        assert len(layers) > 15
        assert all(isinstance(layer.weight, QTensor) for layer in layers.values())
        assert {layer.weight.qtype for layer in layers.values()} == {kinds[qtype]}

        with torch.no_grad():
            off = (family.predict(noise_like(family), TIMES, collate(rows)) - wanted).abs().max() / wanted.abs().mean()
        assert 0 < off < NEAR[qtype]

        lora = trained_lora(family, 4, 4)
        assert len(lora.layers) == len(layers)
        before = {name: layer.weight.dequantize().clone() for name, layer in layers.items()}
        optimizer = torch.optim.SGD(lora.params.values(), lr=1e-2)
        losses = []
        for _ in range(2):
            loss = loss_of(family, rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[1] < losses[0] and all(param.grad.any() for param in lora.params.values())
        assert all(torch.equal(layer.weight.dequantize(), before[name]) for name, layer in layers.items())


def test_layers_that_fail_are_named(tiny_flux: Path):
    transformer = Source(str(tiny_flux)).load("transformer", torch.float32)
    transformer.transformer_blocks[0].attn.to_k.weight[3, 5] = float("nan")
    with pytest.raises(RuntimeError, match=r"qint8 failed for 1 layers: transformer_blocks\.0\.attn\.to_k"):
        quantize(transformer, "qint8", CPU)


def test_an_unknown_type_lists_the_known_ones(tiny_flux: Path):
    with pytest.raises(ValueError, match=r"'qint5' is not known \(known: qfloat8, qint8, qint4\)"):
        quantize(torch.nn.Linear(2, 2), "qint5", CPU)


def test_a_list_of_plain_layers_is_left_alone():
    module = torch.nn.Module()
    module.heads = torch.nn.ModuleList([torch.nn.Linear(8, 8)])
    module.blocks = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(8, 8))])
    quantize(module, "qint8", CPU)
    assert type(module.heads[0]) is torch.nn.Linear and not list(module.heads[0].children())
    assert isinstance(module.blocks[0][0].weight, QTensor)


def test_quantize_covers_the_large_text_encoder_unless_told_otherwise(tiny_flux: Path, cpu: Context):
    def quantized(**keys: object) -> list[str]:
        parts = build(tiny_flux, cpu, **keys).parts
        names = []
        for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
            with parts.using(name):
                if any(isinstance(param, QTensor) for param in parts[name].parameters()):
                    names.append(name)
        return names

    assert quantized() == []
    assert quantized(quantize=True) == ["text_encoder_2", "transformer"]
    assert quantized(quantize=True, quantize_te=False) == ["transformer"]
    assert quantized(quantize_te=True, qtype_te="qint8") == ["text_encoder_2"]


def test_precision_is_per_part(tiny_flux: Path):
    config = flux_config(tiny_flux, vae_dtype="fp32", te_dtype="fp16")
    context = Context(CPU, torch.bfloat16, seed=1)
    parts = make_parts(
        config,
        context,
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        checkpointing=True,
    )
    found = {}
    for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
        with parts.using(name):
            found[name] = parts[name].dtype
            if name == "transformer":
                assert parts[name].is_gradient_checkpointing
    assert found == {
        "vae": torch.float32,
        "text_encoder": torch.float16,
        "text_encoder_2": torch.float16,
        "transformer": torch.bfloat16,
    }


def test_a_vae_that_overflows_in_fp16_is_kept_in_fp32(tiny_flux: Path):
    names = {"text_encoders": ("text_encoder", "text_encoder_2"), "tokenizers": ("tokenizer", "tokenizer_2")}
    for dtype, wanted in ((torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)):
        context = Context(CPU, dtype, seed=1)
        parts = make_parts(flux_config(tiny_flux), context, denoiser="transformer", **names, checkpointing=False)
        assert parts.source.config("vae")["force_upcast"]
        with parts.using("vae"):
            assert parts["vae"].dtype == wanted


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, {}),
        ({"vae_path": "/v"}, {"vae": "/v"}),
        ({"unet_path": "/u"}, {"transformer": "/u"}),
        ({"te_name_or_path": "/t"}, {"text_encoder_2": "/t", "tokenizer_2": "/t"}),
        (
            {"extras_name_or_path": "/e", "vae_path": "/v"},
            dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"), "/e") | {"vae": "/v"},
        ),
    ],
)
def test_paths_replace_parts(tiny_flux: Path, cpu: Context, keys: dict[str, str], wanted: dict[str, str]):
    parts = make_parts(
        flux_config(tiny_flux, **keys),
        cpu,
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        checkpointing=False,
    )
    assert parts.source.overrides == wanted
