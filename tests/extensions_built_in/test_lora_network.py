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
from toolkit.networks.ranks import Ranks
from toolkit.networks.targets import NoLayersLeft, Rules

TRAINABLE = Trainable("transformer", blocks=r"blocks\..*", prefix="transformer.")


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
    assert set(lora_on(toy(), rules=Rules(blocks_only=False)).layers) == {"blocks.0", "blocks.1", "head"}
    assert set(lora_on(toy(), rules=Rules(only=["blocks.1"])).layers) == {"blocks.1"}
    assert set(lora_on(toy(), rules=Rules(ignore=["blocks.1"])).layers) == {"blocks.0"}


def test_a_layer_whose_name_ends_like_a_chosen_one_is_left_alone():
    module = toy()
    module.blocks = torch.nn.Sequential(toy().blocks, toy().blocks)
    module.other = torch.nn.ModuleDict({"blocks": torch.nn.Sequential(toy().blocks)})
    network = lora_on(module, ranks=Ranks(2, 4.0, block_linear=[2, 3]))
    assert [len(network.params[f"blocks.{i}.0.lora_A.weight"]) for i in (0, 1)] == [2, 3]
    assert not [name for name, part in module.other.named_modules() if hasattr(part, "lora_A")]


def test_only_its_own_weights_learn_and_they_are_fp32():
    module = toy().bfloat16()
    network = lora_on(module)
    learning = {param for param in module.parameters() if param.requires_grad}
    assert learning == set(network.params.values())
    assert set(network.params) == {f"blocks.{i}.lora_{part}.weight" for i in range(2) for part in "AB"}
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
    with pytest.raises(
        ValueError, match=r"x\.safetensors: transformer\.blocks\.0 has lora_A\.weight of shape \[2, 6\]"
    ):
        lora_on(toy(), rank=3).read(file)
    with pytest.raises(ValueError, match=r"layers that this network lacks, e\.g\. transformer\.blocks\.1"):
        lora_on(toy(), rank=2, rules=Rules(only=["blocks.0"])).read(file)
    save_file({name: tensor for name, tensor in load_file(file).items() if "blocks.0" in name}, file)
    with pytest.raises(ValueError, match=r"transformer\.blocks\.1 is missing \(1 of 2\)"):
        lora_on(toy(), rank=2).read(file)
    save_file({"transformer.elsewhere.lora_A.weight": torch.zeros(2, 6)}, file)
    with pytest.raises(ValueError, match="elsewhere"):
        lora_on(toy(), rank=2).read(file)
    save_file({"text_encoder.a.lora_A.weight": torch.zeros(2, 6)}, file)
    with pytest.raises(ValueError, match="has nothing for transformer"):
        lora_on(toy(), rank=2).read(file, exact=False)
    save_file({f"transformer.blocks.0.lokr_w{i}": torch.zeros(2, 3) for i in (1, 2)}, file)
    with pytest.raises(ValueError, match=r"blocks\.0 has lokr_w1, lokr_w2, a LoRA has lora_A\.weight"):
        lora_on(toy(), rank=2).read(file, exact=False)


def test_a_refused_file_changes_nothing(tmp_path: Path):
    lora_on(toy(), rank=2).write(tmp_path / "x.safetensors", torch.float32, {})
    module = toy()
    network = lora_on(module, rank=2, rules=Rules(only=["blocks.0"]))
    before = module(X)
    with pytest.raises(ValueError):
        network.read(tmp_path / "x.safetensors")
    assert torch.equal(module(X), before)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_file_of_another_rank_is_converted_on_request(tmp_path: Path, rank: int):
    module, again = toy(), toy()
    lora_on(module, rank=2, alpha=4.0).write(tmp_path / "x.safetensors", torch.float32, {})
    reader = lora_on(again, rank=rank, alpha=2.0, trained=False)
    (note,) = reader.read(tmp_path / "x.safetensors", exact=False)
    assert "2 layers converted" in note and f"here [{rank}, 6]" in note
    if rank == 3:
        torch.testing.assert_close(again(X), module(X))
        again(X).square().mean().backward()
        assert all(param.grad.any() for param in reader.params.values()), "what was added learns too"
        added = reader.params["blocks.0.lora_B.weight"].grad[:, 2:]
        assert added.any()
        return
    for wanted, found in zip(module.blocks, again.blocks, strict=True):
        update = 2.0 * wanted.lora_B["default"].weight @ wanted.lora_A["default"].weight
        u, s, v = torch.linalg.svd(update)
        nearest = s[0] * u[:, :1] @ v[:1]
        torch.testing.assert_close(2.0 * found.lora_B["default"].weight @ found.lora_A["default"].weight, nearest)


def test_layers_that_a_file_lacks_start_anew_on_request(tmp_path: Path):
    module = toy()
    part = lora_on(module, rules=Rules(only=["blocks.0"]))
    part.write(tmp_path / "x.safetensors", torch.float32, {})
    again = toy()
    (note,) = lora_on(again, trained=False).read(tmp_path / "x.safetensors", exact=False)
    assert "1 layers of transformer are not in it" in note
    torch.testing.assert_close(again(X), module(X))


def test_nothing_to_train_is_an_error():
    with pytest.raises(NoLayersLeft, match="'mlp': 0"):
        lora_on(toy(), rules=Rules(only=["mlp"]))


def test_rank_dropout_leaves_out_ranks_while_training_only():
    module = toy()
    lora_on(module, rank=4, rank_dropout=0.5)
    layer = module.blocks[0].train()
    x = X[:1].repeat(4000, 1)
    changes = layer(x) - layer.base_layer(x)
    assert len(changes.round(decimals=4).unique(dim=0)) == 16, "every subset of 4 ranks, drawn per sample"
    layer.eval()
    whole = layer(X[:1]) - layer.base_layer(X[:1])
    torch.testing.assert_close(changes.mean(0, keepdim=True), whole, rtol=0, atol=0.1 * whole.abs().max().item())
    assert torch.equal(layer(X), layer(X))


def test_module_dropout_leaves_out_whole_layers_while_training_only():
    module, base = toy(), toy()
    lora_on(module, module_dropout=0.5)
    layer = module.blocks[0].train()
    torch.manual_seed(0)
    dropped = [torch.equal(layer(X), base.blocks[0](X)) for _ in range(40)]
    assert 8 < sum(dropped) < 32
    layer.eval()
    assert not any(torch.equal(layer(X), base.blocks[0](X)) for _ in range(10))


def test_describe_tells_layers_matches_and_warnings():
    lines = lora_on(toy(), rules=Rules(only=["blocks.1", "mlp"])).describe()
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
            "network_kwargs": {
                "only_if_contains": ["blocks.0", "head"],
                "ignore_if_contains": ["head"],
                "rank_dropout": 0.1,
                "module_dropout": 0.2,
            },
        }
    )
    network = config.build(toy(), TRAINABLE)
    layer = network.layers["blocks.0"]
    assert len(layer.lora_A["default"]._forward_hooks) == len(layer.lora_B["default"]._forward_hooks) == 1
    assert set(network.layers) == {"blocks.0"}
    assert network.layers["blocks.0"].lora_dropout["default"].p == 0.25
    assert network.targets.choice.matches == (("blocks.0", 1), ("head", 1), ("head", 1))


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
