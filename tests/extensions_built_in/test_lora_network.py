"""LoRA: where it goes, how strongly it acts, what its file holds, what a wrong file is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from extensions_built_in.flux.family import BLOCKS
from extensions_built_in.networks.config import Lora
from extensions_built_in.networks.lora import LoraNetwork
from toolkit.models.family import Trainable

TRAINABLE = Trainable("denoiser", blocks=r"blocks\..*", prefix="transformer.")


def toy() -> torch.nn.Module:
    """Two blocks and a head; the same weights every time."""
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.blocks = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 6))
    module.head = torch.nn.Linear(6, 6)
    module.forward = lambda x: module.head(module.blocks(x))
    return module.requires_grad_(False)


def lora_on(module: torch.nn.Module, rank: int = 2, alpha: float = 4.0, trained: bool = True, **more: object):
    network = LoraNetwork(module, TRAINABLE, rank, alpha, **more)  # type: ignore[arg-type]
    if trained:
        for param in network.params.values():
            param.data.normal_()
    return network


X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_the_update_is_alpha_over_rank_times_the_product():
    module = toy()
    network = lora_on(module)
    inner = module.blocks[0]
    down, up = inner.lora_A["default"].weight, inner.lora_B["default"].weight
    torch.testing.assert_close(inner(X), toy().blocks[0](X) + 2.0 * X @ down.T @ up.T)
    assert sum(param.numel() for param in network.params.values()) == 2 * (6 + 8) * 2


def test_it_goes_into_blocks_only_unless_told_otherwise():
    assert set(lora_on(toy()).layers) == {"blocks.0", "blocks.1"}
    assert set(lora_on(toy(), blocks_only=False).layers) == {"blocks.0", "blocks.1", "head"}
    assert set(lora_on(toy(), only=["blocks.1"]).layers) == {"blocks.1"}
    assert set(lora_on(toy(), ignore=["blocks.1"]).layers) == {"blocks.0"}


def test_only_its_own_weights_learn_and_they_are_fp32():
    module = toy().bfloat16()
    network = lora_on(module)
    learning = {name for name, param in module.named_parameters() if param.requires_grad}
    assert learning == set(network.params) and len(learning) == 4
    assert {param.dtype for param in network.params.values()} == {torch.float32}
    assert module.blocks[0].base_layer.weight.dtype == torch.bfloat16


def test_scaled_changes_the_strength_inside_the_block():
    module, base = toy(), toy()(X)
    network = lora_on(module)
    full = module(X)
    with network.scaled(0):
        torch.testing.assert_close(module(X), base, rtol=0, atol=0)
        with network.scaled(0.5):
            torch.testing.assert_close(module(X), base, rtol=0, atol=0)
    torch.testing.assert_close(module(X), full, rtol=0, atol=0)
    with network.scaled(0.5):
        halved = module.blocks[0](X) - toy().blocks[0](X)
    torch.testing.assert_close(halved * 2, module.blocks[0](X) - toy().blocks[0](X))
    with pytest.raises(KeyboardInterrupt), network.scaled(3.0):
        raise KeyboardInterrupt
    torch.testing.assert_close(module(X), full, rtol=0, atol=0)


def test_dropout_acts_while_training_only():
    module = toy()
    lora_on(module, dropout=0.5)
    module.train()
    assert not torch.equal(module(X), module(X))
    module.eval()
    assert torch.equal(module(X), module(X))


@pytest.mark.parametrize("alpha", [2.0, 0.5, 7.0])
def test_a_written_file_comes_back(tmp_path: Path, alpha: float):
    module = toy()
    network = lora_on(module, alpha=alpha)
    network.write(tmp_path / "x.safetensors", torch.float32, network.header)
    again = toy()
    reader = lora_on(again, alpha=alpha)
    reader.read(tmp_path / "x.safetensors")
    torch.testing.assert_close(again(X), module(X))
    for name, param in network.params.items():
        torch.testing.assert_close(reader.params[name], param)


def test_a_file_of_another_alpha_acts_the_same(tmp_path: Path):
    module, again = toy(), toy()
    lora_on(module, alpha=4.0).write(tmp_path / "x.safetensors", torch.float32, {})
    lora_on(again, alpha=1.0).read(tmp_path / "x.safetensors")
    torch.testing.assert_close(again(X), module(X))


def test_keys_and_header_are_those_of_diffusers(tmp_path: Path):
    network = lora_on(toy(), rank=2, alpha=4.0)
    network.write(tmp_path / "x.safetensors", torch.bfloat16, {**network.header, "base": "tiny"})
    tensors = load_file(tmp_path / "x.safetensors")
    assert set(tensors) == {f"transformer.blocks.{i}.lora_{part}.weight" for i in range(2) for part in "AB"}
    assert tensors["transformer.blocks.0.lora_A.weight"].shape == (2, 6)
    assert tensors["transformer.blocks.0.lora_B.weight"].shape == (8, 2)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        header = file.metadata()
    assert header["ss_network_dim"] == "2" and header["ss_network_alpha"] == "4.0" and header["base"] == "tiny"
    assert header["alpha_folded"] == "true" and header["format"] == "pt"


def test_writing_leaves_the_network_as_it_is(tmp_path: Path):
    module = toy()
    network, before = lora_on(module), module(X)
    network.write(tmp_path / "x.safetensors", torch.bfloat16, {})
    assert torch.equal(module(X), before)


def test_a_file_of_another_network_is_refused(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    lora_on(toy(), rank=2).write(file, torch.float32, {})
    with pytest.raises(ValueError, match=r"blocks\.0\.lora_A\.weight is missing or has another rank"):
        lora_on(toy(), rank=3).read(file)
    with pytest.raises(ValueError, match=r"layers that this network lacks, e\.g\. transformer\.blocks\.1"):
        lora_on(toy(), rank=2, only=["blocks.0"]).read(file)
    tensors = load_file(file)
    del tensors["transformer.blocks.1.lora_B.weight"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"blocks\.1\.lora_B\.weight is missing"):
        lora_on(toy(), rank=2).read(file)


def test_a_refused_file_changes_nothing(tmp_path: Path):
    lora_on(toy(), rank=2).write(tmp_path / "x.safetensors", torch.float32, {})
    module = toy()
    network = lora_on(module, rank=2, only=["blocks.0"])
    before = module(X)
    with pytest.raises(ValueError):
        network.read(tmp_path / "x.safetensors")
    assert torch.equal(module(X), before)


def test_describe_tells_layers_matches_and_warnings():
    lines = lora_on(toy(), only=["blocks.1", "mlp"]).describe()
    assert lines[0] == "LoRA rank 2, alpha 4: 1 layers, 28 parameters"
    assert lines[1:3] == ["  'blocks.1' matches 1 layers", "  'mlp' matches 0 layers"]
    assert "warning" in lines[3] and "'mlp' matches no layer" in lines[3]


@pytest.mark.parametrize(
    ("keys", "rank", "alpha"),
    [
        ({}, 4, 4.0),
        ({"linear": 8}, 8, 8.0),
        ({"linear": 8, "linear_alpha": 2}, 8, 2.0),
        ({"linear": 8, "rank": 3}, 3, 3.0),
        ({"linear": 8, "alpha": 5}, 8, 5.0),
        ({"linear": 8, "linear_alpha": 2, "alpha": 5}, 8, 2.0),
    ],
)
def test_the_config_builds_it(keys: dict[str, float], rank: int, alpha: float):
    config = Lora.model_validate({"type": "lora", **keys})
    network = config.build(toy(), TRAINABLE)
    assert (network.rank, network.alpha) == (rank, alpha)
    assert set(network.layers) == {"blocks.0", "blocks.1"}


def test_the_config_hands_all_choices_on():
    config = Lora.model_validate(
        {
            "type": "lora",
            "dropout": 0.25,
            "transformer_only": False,
            "network_kwargs": {"only_if_contains": ["blocks.0", "head"], "ignore_if_contains": ["head"]},
        }
    )
    network = config.build(toy(), TRAINABLE)
    assert set(network.layers) == {"blocks.0"}
    assert network.layers["blocks.0"].lora_dropout["default"].p == 0.25
    assert network.choice.matches == (("blocks.0", 1), ("head", 1), ("head", 1))


def test_flux_blocks_leave_the_embedders_and_the_head_out(tiny_flux: Path):
    from toolkit.models.source import Source
    from toolkit.networks.targets import adaptable_layers, choose

    names = adaptable_layers(Source(str(tiny_flux)).load("transformer", torch.float32))
    outside = set(names) - set(choose(names, "transformer.", BLOCKS).names)
    assert {name.split(".")[0] for name in outside} == {
        "x_embedder",
        "context_embedder",
        "time_text_embed",
        "norm_out",
        "proj_out",
    }
