"""Attention kernels by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from toolkit.training.attention import attention_by, check_backend


@pytest.fixture(scope="module")
def flux(tiny_flux: Path) -> FluxTransformer2DModel:
    return FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer")


def answer(model: FluxTransformer2DModel) -> torch.Tensor:
    torch.manual_seed(0)
    config = model.config
    with torch.no_grad():
        return model(
            hidden_states=torch.randn(1, 6, config.in_channels),
            encoder_hidden_states=torch.randn(1, 3, config.joint_attention_dim),
            pooled_projections=torch.randn(1, config.pooled_projection_dim),
            timestep=torch.tensor([0.5]),
            guidance=torch.ones(1),
            img_ids=torch.zeros(6, 3),
            txt_ids=torch.zeros(3, 3),
            return_dict=False,
        )[0]


def kinds(model: torch.nn.Module) -> set[object]:
    layers = [layer for layer in model.modules() if hasattr(getattr(layer, "processor", None), "_attention_backend")]
    return {layer.processor._attention_backend for layer in layers}  # type: ignore[union-attr]


def test_the_kernels_are_used_and_other_models_keep_theirs(flux: FluxTransformer2DModel):
    before = _AttentionBackendRegistry._active_backend
    plain = answer(flux)
    with attention_by("_native_math", [flux]):
        assert kinds(flux) == {AttentionBackendName._NATIVE_MATH}
        torch.testing.assert_close(answer(flux), plain, atol=1e-5, rtol=1e-5)
    assert _AttentionBackendRegistry._active_backend == before


def test_native_leaves_everything_alone():
    with attention_by("native", [torch.nn.Linear(1, 1)]):
        pass
    check_backend("native")
    check_backend("Flash")


def test_an_unknown_name_is_an_error_with_the_nearest():
    with pytest.raises(ValueError, match=r"train\.attention_backend: there is none named 'sagee'; did you mean 'sage'"):
        check_backend("sagee")


def test_a_missing_package_is_named(flux: FluxTransformer2DModel):
    if torch.cuda.is_available():
        pytest.skip("the package may be there")
    said = r"train\.attention_backend: sage cannot be used here: .*sageattention"
    with pytest.raises(ValueError, match=said), attention_by("sage", [flux]):
        pass


def test_a_model_without_the_choice_is_named():
    unet = UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    said = "UNet2DConditionModel does not let its attention be chosen"
    with pytest.raises(ValueError, match=said), attention_by("_native_math", [unet]):
        pass
