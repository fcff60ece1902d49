"""Several modules as one network: files, learning rates, and what is said when the rules leave nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from extensions_built_in.networks.config import Lora
from toolkit.config.key_names import KeyNames
from toolkit.models.family import Trainable
from toolkit.networks.full import FullWeights
from toolkit.networks.group import NetworkGroup, build_group, sibling
from toolkit.networks.keys.codec import Codec
from toolkit.networks.targets import NoLayersLeft

BLOCKS = r"blocks\..*"
UNET = Trainable("unet", BLOCKS, "unet.")
TEXT = Trainable("text_encoder", BLOCKS, "text_encoder.")
HIGH = Trainable("transformer", BLOCKS, "transformer.", file="_high_noise", times=(0.875, 1.0))
LOW = Trainable("transformer_2", BLOCKS, "transformer.", file="_low_noise", times=(0.0, 0.875))


def toy() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Module()
    module.blocks = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 6))
    return module


def group_of(*trainables: Trainable, only: list[str] | None = None) -> NetworkGroup:
    """Fresh LoRAs with noise in them."""
    config = Lora.model_validate({"linear": 2, "linear_alpha": 4, "network_kwargs": {"only_if_contains": only}})
    places = [(toy(), trainable, Codec(KeyNames(), trainable.prefix)) for trainable in trainables]
    group = build_group(config.build, places)
    for number, param in enumerate(group.params.values()):
        param.data.normal_(generator=torch.Generator().manual_seed(number))
    return group


def assert_read_back(group: NetworkGroup, path: Path, *trainables: Trainable) -> None:
    again = group_of(*trainables)
    for param in again.params.values():
        param.data.zero_()
    assert again.read(path) == []
    assert again.params.keys() == group.params.keys()
    for name, param in group.params.items():
        torch.testing.assert_close(again.params[name], param)


def test_a_denoiser_and_its_text_encoder_share_a_file(tmp_path: Path):
    group = group_of(UNET, TEXT)
    assert dict(group.by_file()) == {"": group}
    group.write(tmp_path / "x.safetensors", torch.float32, {})
    keys = {f"{part}.blocks.{i}.lora_{ab}.weight" for part in ("unet", "text_encoder") for i in (0, 1) for ab in "AB"}
    assert set(load_file(tmp_path / "x.safetensors")) == keys
    assert_read_back(group, tmp_path / "x.safetensors", UNET, TEXT)
    assert set(group.params) == keys


def test_experts_have_a_file_each(tmp_path: Path):
    group = group_of(HIGH, LOW)
    assert list(group.by_file()) == ["_high_noise", "_low_noise"]
    for suffix, network in group.by_file().items():
        network.write(tmp_path / f"x_000000010{suffix}.safetensors", torch.float32, {})
    assert set(load_file(tmp_path / "x_000000010_low_noise.safetensors")) == {
        f"transformer.blocks.{i}.lora_{ab}.weight" for i in (0, 1) for ab in "AB"
    }
    for suffix in ("_high_noise", "_low_noise", ""):
        assert_read_back(group, tmp_path / f"x_000000010{suffix}.safetensors", HIGH, LOW)
    group.write(tmp_path / "y_low_noise.safetensors", torch.float32, {})
    assert_read_back(group, tmp_path / "y.safetensors", HIGH, LOW)
    (tmp_path / "y_high_noise.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="y_high_noise"):
        group_of(HIGH, LOW).read(tmp_path / "y_low_noise.safetensors", exact=False)


def test_one_file_may_start_both_experts(tmp_path: Path):
    one = group_of(Trainable("transformer", BLOCKS, "transformer."))
    one.write(tmp_path / "wan21.safetensors", torch.float32, {})
    group = group_of(HIGH, LOW)
    with pytest.raises(FileNotFoundError):
        group.read(tmp_path / "wan21.safetensors")
    group.read(tmp_path / "wan21.safetensors", exact=False)
    for name, param in one.params.items():
        torch.testing.assert_close(group.params[name], param)
        torch.testing.assert_close(group.params[name.replace("transformer.", "transformer_2.")], param)


def test_a_file_for_both_experts_starts_each_with_its_own(tmp_path: Path):
    group = group_of(HIGH, LOW)
    group.write(tmp_path / "x.safetensors", torch.float32, {})
    both = {
        key.replace("transformer.", f"diffusion_model.transformer_{number}."): tensor
        for number, suffix in enumerate(group.by_file(), 1)
        for key, tensor in load_file(tmp_path / f"x{suffix}.safetensors").items()
    }
    save_file(both, tmp_path / "both.safetensors")
    for trainables in ((HIGH, LOW), (LOW,)):
        again = group_of(*trainables)
        again.read(tmp_path / "both.safetensors", exact=False)
        for name, param in again.params.items():
            torch.testing.assert_close(param, group.params[name])


def test_a_single_expert_keeps_its_suffix():
    group = group_of(LOW)
    assert list(group.by_file()) == ["_low_noise"]
    assert sibling(Path("a/x_high_noise.safetensors"), "_low_noise", {"_high_noise": 0}).name == (
        "x_low_noise.safetensors"
    )


def test_a_file_without_text_encoder_starts_the_denoiser_only_on_request(tmp_path: Path):
    group_of(UNET).write(tmp_path / "x.safetensors", torch.float32, {})
    group = group_of(UNET, TEXT)
    before = {name: param.clone() for name, param in group.params.items()}
    with pytest.raises(ValueError, match=r"text_encoder\.blocks\.0 is missing"):
        group.read(tmp_path / "x.safetensors")
    assert all(torch.equal(before[name], param) for name, param in group.params.items()), "nothing is half read"
    (note,) = group.read(tmp_path / "x.safetensors", exact=False)
    assert "2 layers of text_encoder are not in it" in note
    with pytest.raises(ValueError, match="has nothing for text_encoder"):
        group_of(TEXT).read(tmp_path / "x.safetensors", exact=False)


def test_learning_rates_of_groups():
    group = group_of(UNET, TEXT)
    plain = group.param_groups(1e-3)
    assert [g["lr"] for g in plain] == [1e-3, 1e-3]
    assert [id(p) for g in plain for p in g["params"]] == [id(p) for p in group.params.values()]
    rates = {}
    for g in group.param_groups(1e-3, text_lr=1e-4, plus_ratio=16):
        rates |= {id(param): g["lr"] for param in g["params"]}
    named = {name: rates[id(param)] for name, param in group.params.items()}
    assert named["unet.blocks.0.lora_A.weight"] == 1e-3 and named["unet.blocks.0.lora_B.weight"] == 1.6e-2
    assert named["text_encoder.blocks.1.lora_A.weight"] == 1e-4
    assert named["text_encoder.blocks.1.lora_B.weight"] == pytest.approx(1.6e-3)
    assert len(rates) == len(group.params)


def test_scaled_reaches_every_module():
    group = group_of(UNET, TEXT)
    layers = [layer for _, network in group.members for layer in network.layers.values()]  # type: ignore[attr-defined]
    with group.scaled(0.5):
        assert {layer.scaling["default"] for layer in layers} == {1.0}
    assert {layer.scaling["default"] for layer in layers} == {2.0}


def test_rules_may_leave_a_module_out_but_not_all():
    group = group_of(UNET, TEXT, only=["unet.blocks.1"])
    assert {name.split(".")[0] for name in group.params} == {"unet"}
    assert "text_encoder: nothing is trained, the rules leave no layer" in group.describe()
    with pytest.raises(NoLayersLeft, match="nowhere"):
        group_of(UNET, TEXT, only=["nowhere"])


def test_describe_counts_all_modules():
    lines = group_of(UNET, TEXT).describe()
    assert lines[0].startswith("unet: LoRA rank 2, alpha 4: 2 layers, 56 parameters")
    assert lines[-1] == "112 trained parameters in 2 modules"


def test_whole_models_share_a_folder_but_not_a_file(tiny_flux: Path, tmp_path: Path):
    from toolkit.models.source import Source

    source = Source(str(tiny_flux))
    one, two = (source.load("transformer", torch.float32) for _ in range(2))
    members = [(HIGH, FullWeights(one, "transformer")), (LOW, FullWeights(two, "transformer_2"))]
    group = NetworkGroup(members)
    assert dict(group.by_file()) == {"": group}
    for param in group.params.values():
        param.data += 0.1
    group.write(tmp_path / "x", torch.float32, {})
    wanted = {name: param.detach().clone() for name, param in group.params.items()}
    for param in group.params.values():
        param.data.zero_()
    group.read(tmp_path / "x")
    assert all(torch.equal(param, wanted[name]) for name, param in group.params.items())

    text = FullWeights(source.load("text_encoder", torch.float32), "text_encoder", is_single_file=True)
    with pytest.raises(ValueError, match="a single file holds one model"):
        NetworkGroup([(UNET, FullWeights(one, "unet", is_single_file=True)), (TEXT, text)])
    experts = [(t, FullWeights(one, t.part, file=t.file, is_single_file=True)) for t in (HIGH, LOW)]
    assert list(NetworkGroup(experts).by_file()) == ["_high_noise", "_low_noise"]
