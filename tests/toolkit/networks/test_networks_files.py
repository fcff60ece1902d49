"""Files of networks: alpha folded in, hashed header; a full fine-tune as a diffusers folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file

from toolkit.models.source import Source
from toolkit.networks.files import fold_alpha, weights_hash, write_weights
from toolkit.networks.full import FullWeights


@pytest.mark.parametrize("scale", [0.25, 1.0, 4.0])
def test_folded_alpha_multiplies_the_product(scale: float):
    down, up = torch.randn(4, 8), torch.randn(6, 4)
    folded_down, folded_up = fold_alpha(down, up, scale)
    torch.testing.assert_close(folded_up @ folded_down, scale * up @ down)
    # shared between both, so that neither leaves the range of a narrow type
    assert (folded_down / down).mean() == pytest.approx(scale**0.5)


def test_written_weights_carry_header_and_hash(tmp_path: Path):
    tensors = {"b": torch.randn(3, 2), "a": torch.randn(2, 3).T}
    write_weights(tmp_path / "x.safetensors", tensors, torch.float16, {"name": "x"})
    saved = load_file(tmp_path / "x.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    torch.testing.assert_close(saved["a"], tensors["a"].half())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        header = file.metadata()
    assert header == {"name": "x", "format": "pt", "sshs_model_hash": weights_hash(saved)}


def test_the_hash_follows_names_and_values_but_not_order():
    one, other = torch.zeros(2), torch.ones(2)
    assert weights_hash({"a": one, "b": other}) == weights_hash({"b": other, "a": one})
    assert len({weights_hash(x) for x in ({"a": one}, {"b": one}, {"a": other})}) == 3


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
