"""Quantized weights are really small, compute nearly the same, carry a LoRA, and failures are named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from optimum.quanto import QTensor
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from toolkit.models.fill import blocks
from toolkit.models.quantize import QUANTO, TORCHAO, Quantization, is_quantized, quantize
from toolkit.models.source import Source
from toolkit.models.wrapped import leaves

NEAR = {"qfloat8": 0.25, "qint8": 0.05, "qint4": 0.6, "qint2": 3.0, "int8": 0.05, "float8": 0.25}
"""Largest difference, of the mean size of the output."""
BITS = {"qint4": 4, "qint2": 2}
RUNNABLE = [
    pytest.param(
        qtype,
        marks=pytest.mark.skipif(qtype in TORCHAO and not importlib.util.find_spec("torchao"), reason="needs torchao"),
    )
    for qtype in NEAR
]


class Block(nn.Module):
    """Two layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(128, 256), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x))


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    module.blocks = nn.ModuleList([Block()])
    return module.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("qtype", RUNNABLE)
def test_few_bits_compute_nearly_the_same_and_carry_a_lora(qtype: str, dtype: torch.dtype):
    plain, module = model(dtype), quantize(model(dtype), Quantization(qtype))
    x = torch.randn(5, 128, dtype=dtype, requires_grad=True)
    wanted, found = plain.blocks[0](x), module.blocks[0](x)
    off = (found - wanted).abs().max() / wanted.abs().mean()
    assert 0 < off < NEAR[qtype] and found.dtype == dtype

    layer = module.blocks[0].first
    assert is_quantized(layer) and layer.bias is not None
    stored = sum(leaf.nbytes for leaf in leaves(layer.weight))
    assert stored < layer.weight.numel() * (BITS.get(qtype, 8) + 2) / 8

    before = layer.weight.dequantize().clone()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["first"], init_lora_weights=False), module)
    module.blocks[0](x).float().square().mean().backward()
    trained = [param for name, param in module.named_parameters() if ".lora_" in name]
    assert len(trained) == 2 and all(param.grad is not None and param.grad.any() for param in trained)
    assert x.grad is not None and x.grad.any()
    assert torch.equal(module.blocks[0].first.base_layer.weight.dequantize(), before)


@pytest.mark.parametrize("exclude", [("blocks.0.first",), ("*.first",), ("blocks.*.f*",)])
def test_excluded_layers_stay_as_they_are(exclude: tuple[str, ...]):
    block = quantize(model(), Quantization("qint8", exclude)).blocks[0]
    assert type(block.first) is nn.Linear and is_quantized(block.last)


def test_layers_that_fail_are_named(tiny_flux: Path):
    transformer = Source(str(tiny_flux)).load("transformer", torch.float32)
    transformer.transformer_blocks[0].attn.to_k.weight[3, 5] = float("nan")
    with pytest.raises(RuntimeError, match=r"qint8 failed for 1 layers: transformer_blocks\.0\.attn\.to_k"):
        quantize(transformer, Quantization("qint8"))


def test_an_error_of_the_library_names_the_layer():
    module = model()
    module.blocks[0].last.weight = nn.Parameter(torch.zeros(64, 256, dtype=torch.int8), requires_grad=False)
    with pytest.raises(RuntimeError, match=r"qint4 failed for blocks\.0\.last: .*quantize_kwargs\.exclude"):
        quantize(module, Quantization("qint4"))


def test_a_type_that_cannot_be_had_says_why():
    with pytest.raises(ValueError, match=r"'qint5' is not known \(known: qfloat8, qint8, qint4, qint2, int8"):
        Quantization("qint5")
    if importlib.util.find_spec("torchao"):
        with pytest.raises(ValueError, match=r"int4 of torchao needs a CUDA device, not cpu; take qint4"):
            Quantization("int4")
    else:
        with pytest.raises(ValueError, match=r"int8 needs torchao: pip install 'aitk\[torchao\]'"):
            Quantization("int8")


def test_four_and_two_bits_need_no_compiler(monkeypatch: pytest.MonkeyPatch):
    from optimum.quanto.library.extensions.cpp import ext

    def compile_kernel() -> None:
        raise AssertionError("a kernel is compiled")

    monkeypatch.setattr(type(ext), "lib", property(lambda self: compile_kernel()))
    for qtype in ("qint4", "qint2"):
        quantize(model(), Quantization(qtype)).blocks[0](torch.randn(2, 128))


def test_a_list_of_plain_layers_is_left_alone():
    module = nn.Module()
    module.heads = nn.ModuleList([nn.Linear(8, 8)])
    module.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8)), None])
    module.inner = nn.Module()
    module.inner.layers = nn.ModuleList([Block()])
    module.embed = nn.Sequential(nn.Linear(8, 8))
    quantize(module, Quantization("qint8"))
    assert type(module.heads[0]) is nn.Linear and not list(module.heads[0].children())
    assert isinstance(module.blocks[0][0].weight, QTensor)
    assert [name for name, _ in blocks(module)] == ["blocks.0", "inner.layers.0", "embed"]


def test_all_of_quanto_is_covered():
    assert set(QUANTO) | {"int8", "float8"} == set(NEAR)
