"""Files of networks: hashed header; a full fine-tune as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file

from toolkit.models.source import Source
from toolkit.networks.files import write_weights
from toolkit.networks.full import FullWeights
from toolkit.networks.keys.hashes import sshs_hashes
from toolkit.networks.targets import NoLayersLeft


def test_written_weights_carry_header_and_hash(tmp_path: Path):
    tensors = {"b": torch.randn(3, 2), "a": torch.randn(2, 3).T}
    write_weights(tmp_path / "x.safetensors", tensors, torch.float16, {"name": "x"})
    saved = load_file(tmp_path / "x.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    torch.testing.assert_close(saved["a"], tensors["a"].half())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        header = file.metadata()
    assert header == {"name": "x", "format": "pt", **sshs_hashes(saved, {"format": "pt"})}


def test_single_numbers_keep_their_precision(tmp_path: Path):
    write_weights(tmp_path / "x.safetensors", {"x.alpha": torch.tensor(257.0)}, torch.bfloat16, {})
    assert load_file(tmp_path / "x.safetensors")["x.alpha"].item() == 257


@pytest.fixture
def full(tiny_flux: Path) -> FullWeights:
    return FullWeights(Source(str(tiny_flux)).load("transformer", torch.bfloat16), "transformer")


def test_a_full_fine_tune_trains_everything_in_fp32(full: FullWeights):
    assert all(param.requires_grad and param.dtype == torch.float32 for param in full.params.values())
    assert set(full.params) == set(dict(full.module.named_parameters()))
    count = sum(param.numel() for param in full.module.parameters())
    assert f"{count:,} parameters" in full.describe()[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_full_fine_tune_is_a_diffusers_folder(full: FullWeights, tmp_path: Path, dtype: torch.dtype):
    torch.nn.init.ones_(full.params["proj_out.bias"])
    full.write(tmp_path, dtype, {"step": "5"})
    assert yaml.safe_load((tmp_path / "aitk_meta.yaml").read_text()) == {"step": "5"}
    loaded, info = FluxTransformer2DModel.from_pretrained(
        tmp_path, subfolder="transformer", torch_dtype=dtype, output_loading_info=True
    )
    assert not any(info.values())
    for name, param in full.params.items():
        assert torch.equal(loaded.get_parameter(name), param.to(dtype)), name
    assert full.params["proj_out.bias"].dtype == torch.float32, "writing changes nothing in memory"


def test_a_full_fine_tune_is_read_back(full: FullWeights, tmp_path: Path):
    wanted = {name: param.detach().clone() for name, param in full.params.items()}
    full.write(tmp_path, torch.float32, {})
    for param in full.params.values():
        param.data.zero_()
    full.read(tmp_path)
    assert all(torch.equal(param, wanted[name]) for name, param in full.params.items())
    assert all(param is full.module.get_parameter(name) for name, param in full.params.items())
    with full.scaled(0.5):
        assert torch.equal(full.params["proj_out.weight"], wanted["proj_out.weight"])


def test_a_full_fine_tune_may_be_one_file(tiny_flux: Path, tmp_path: Path):
    module = Source(str(tiny_flux)).load("transformer", torch.float32)
    full = FullWeights(module, "transformer", is_single_file=True)
    assert full.suffix == ".safetensors" and dict(full.by_file()) == {"": full}
    wanted = {name: param.detach().clone() for name, param in full.params.items()}
    full.write(tmp_path / "x.safetensors", torch.float32, {"step": "5"})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata()["step"] == "5" and set(file.keys()) == set(module.state_dict())
    for param in full.params.values():
        param.data.zero_()
    full.read(tmp_path / "x.safetensors")
    assert all(torch.equal(param, wanted[name]) for name, param in full.params.items())
    write_weights(tmp_path / "y.safetensors", {"a": torch.zeros(2)}, torch.float32, {})
    with pytest.raises(ValueError, match="is not a FluxTransformer2DModel: a is missing"):
        full.read(tmp_path / "y.safetensors")


def test_a_full_fine_tune_of_some_weights(tiny_flux: Path):
    module = Source(str(tiny_flux)).load("transformer", torch.bfloat16)
    full = FullWeights(module, "transformer", only=["transformer.proj_out", "to_q"], ignore=[".bias"])
    assert full.params and all(name.endswith("weight") for name in full.params)
    assert all(name.startswith("proj_out") or "to_q" in name for name in full.params)
    assert {param.dtype for param in full.params.values()} == {torch.float32}
    frozen = {param.dtype for param in module.parameters() if not param.requires_grad}
    assert frozen == {torch.bfloat16} and full.params["proj_out.weight"].requires_grad
    assert f" of {sum(p.numel() for p in module.parameters()):,} in" in full.describe()[0]
    assert full.param_groups(0.5, text_lr=0.1) == [{"params": list(full.params.values()), "lr": 0.5}]
    with pytest.raises(NoLayersLeft, match="no weight of transformer is left"):
        FullWeights(module, "transformer", only=["nothing"])


def test_a_text_encoder_is_saved_for_transformers(tiny_flux: Path, tmp_path: Path):
    from transformers import CLIPTextModel

    full = FullWeights(Source(str(tiny_flux)).load("text_encoder", torch.float32), "text_encoder")
    for param in full.params.values():
        param.data += 0.1
    full.write(tmp_path, torch.float32, {})
    loaded = CLIPTextModel.from_pretrained(tmp_path, subfolder="text_encoder")
    assert all(torch.equal(loaded.get_parameter(name), param) for name, param in full.params.items())
    full.read(tmp_path)
    assert full.param_groups(0.5, text_lr=0.1)[0]["lr"] == 0.1


def test_a_quantized_model_cannot_be_trained_whole(tiny_flux: Path):
    from optimum import quanto

    module = Source(str(tiny_flux)).load("transformer", torch.bfloat16)
    quanto.quantize(module, weights=quanto.qint8)
    quanto.freeze(module)
    with pytest.raises(ValueError, match="transformer is quantized and cannot be trained whole"):
        FullWeights(module, "transformer")
