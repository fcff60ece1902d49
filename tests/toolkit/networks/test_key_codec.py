"""Key formats there and back, on the layers of real classes."""

from __future__ import annotations

import pytest
import torch
from key_models import MODELS, dora, loha, lokr, lora, native, shapes
from torch import Tensor

from toolkit.networks.keys.codec import FORMATS, Codec
from toolkit.networks.keys.names import LayerNames, expand_braces

FUSED_ONLY = {"lumina2", "pixart"}
"""Families of which ComfyUI reads no parts of fused layers."""


def codec(name: str, format: str) -> Codec:
    return Codec(MODELS[name].names, MODELS[name].prefix, format)


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_lora_is_the_same_there_and_back(name: str, format: str) -> None:
    tensors = native(name, lora)
    written = codec(name, format).encode(tensors)
    assert_equal(codec(name, "diffusers").decode(written, shapes(name)), tensors)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_lokr_is_the_same_there_and_back_or_refused(name: str, format: str) -> None:
    # the layers whose halves change places have no LoKr of the other order
    tensors = {key: t for key, t in native(name, lokr).items() if "norm_out" not in key and "norm1_context" not in key}
    if (format == "original" and MODELS[name].names.fused) or (format != "diffusers" and name in FUSED_ONLY):
        with pytest.raises(ValueError, match="cannot be fused for LoKr; use the key format diffusers"):
            codec(name, format).encode(tensors)
        return
    written = codec(name, format).encode(tensors)
    assert_equal(codec(name, "diffusers").decode(written, shapes(name)), tensors)


@pytest.mark.parametrize("make", [dora, loha])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["sdxl", "flux", "wan", "lumina2"])
def test_other_networks_are_the_same_there_and_back(name: str, format: str, make: object) -> None:
    tensors = native(name, make)  # type: ignore[arg-type]
    written = codec(name, format).encode(tensors)
    assert_equal(codec(name, "diffusers").decode(written, shapes(name)), tensors)


@pytest.mark.parametrize("name", MODELS)
def test_no_two_layers_share_a_name(name: str) -> None:
    names = LayerNames(MODELS[name].names, MODELS[name].prefix)
    for format in FORMATS:
        places = [names.written(layer, format) for layer in shapes(name)]
        whole = [place.name for place in places if place.fused is None]
        assert len(whole) == len(set(whole))
    table = names.table(shapes(name))
    for layer in shapes(name):
        for place in (names.written(layer, format) for format in FORMATS):
            found = table[names.bare(place.name) or ""]
            assert layer in (found.name, *found.parts)


@pytest.mark.parametrize("name", MODELS)
def test_the_vocabulary_has_every_layer(name: str) -> None:
    names = LayerNames(MODELS[name].names, MODELS[name].prefix)
    assert set(shapes(name)) <= set(names.vocabulary(shapes(name)))


@pytest.mark.parametrize(
    ("name", "format", "whole", "parts"),
    [
        ("flux", "kohya", "lora_unet_double_blocks_1_txt_attn_qkv", "transformer_blocks.1.attn.add_{q,k,v}_proj"),
        (
            "flux",
            "comfyui",
            "diffusion_model.single_blocks.0.linear1",
            "single_transformer_blocks.0.{attn.to_{q,k,v},proj_mlp}",
        ),
        ("lumina2", "comfyui", "diffusion_model.layers.1.attention.qkv", "layers.1.attn.to_{q,k,v}"),
        ("pixart", "original", "blocks.0.cross_attn.kv_linear", "transformer_blocks.0.attn2.to_{k,v}"),
    ],
)
def test_a_fused_layer_acts_like_its_parts(name: str, format: str, whole: str, parts: str) -> None:
    tensors = native(name, lora)
    written = codec(name, format).encode(tensors)
    up, down = ("lora_up", "lora_down") if format == "kohya" else ("lora_B", "lora_A")
    stems = ["transformer." + part for part in expand_braces(parts)]
    products = [tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"] for stem in stems]
    torch.testing.assert_close(written[f"{whole}.{up}.weight"] @ written[f"{whole}.{down}.weight"], torch.cat(products))


def test_parts_with_one_lora_a_share_it_when_fused() -> None:
    down, ups = torch.randn(2, 32), [torch.randn(32, 2) for _ in range(3)]
    stem = "transformer.transformer_blocks.0.attn.to_"
    tensors = {f"{stem}{part}.lora_A.weight": down for part in "qkv"}
    tensors |= {f"{stem}{part}.lora_B.weight": up for part, up in zip("qkv", ups, strict=True)}
    written = codec("flux", "original").encode(tensors)
    assert torch.equal(written["double_blocks.0.img_attn.qkv.lora_A.weight"], down)
    assert torch.equal(written["double_blocks.0.img_attn.qkv.lora_B.weight"], torch.cat(ups))
    assert_equal(codec("flux", "original").decode(written, shapes("flux")), tensors)


def test_a_part_that_is_not_adapted_has_zero_rows() -> None:
    tensors = native("flux", lora, keep="transformer_blocks.0.attn.to_k")
    for format in ("kohya", "comfyui"):
        written = codec("flux", format).encode(tensors)
        assert written[
            next(key for key in written if "img_attn" in key and ("lora_B" in key or "up" in key))
        ].shape == (96, 2)
        assert_equal(codec("flux", format).decode(written, shapes("flux")), tensors)
    few = native("lumina2", lora, keep="layers.0.attn.to_q")
    with pytest.raises(ValueError, match="some of them are not adapted; adapt all of them or use the key format diff"):
        codec("lumina2", "comfyui").encode(few)


def test_scale_and_shift_change_places_where_the_original_has_them_the_other_way_round() -> None:
    tensors = native("sd3", lora, keep="norm")
    written = codec("sd3", "original").encode(tensors)
    up = tensors["transformer.norm_out.linear.lora_B.weight"]
    assert torch.equal(written["final_layer.adaLN_modulation.1.lora_B.weight"], torch.cat([up[32:], up[:32]]))
    # only the last block's modulation of the context has two parts
    first, last = (f"transformer.transformer_blocks.{index}.norm1_context.linear.lora_B.weight" for index in (0, 2))
    kept = written["joint_blocks.0.context_block.adaLN_modulation.1.lora_B.weight"]
    moved = written["joint_blocks.2.context_block.adaLN_modulation.1.lora_B.weight"]
    assert torch.equal(kept, tensors[first])
    assert torch.equal(moved, torch.cat([tensors[last][32:], tensors[last][:32]]))


def test_diff_is_fused_and_taken_apart() -> None:
    tensors = native("flux", lambda shape: {"diff": torch.randn(shape), "diff_b": torch.randn(shape[0])})
    written = codec("flux", "comfyui").encode(tensors)
    assert written["diffusion_model.single_blocks.0.linear1.diff"].shape == (32 * 7, 32)
    assert written["diffusion_model.single_blocks.0.linear1.diff_b"].shape == (32 * 7,)
    assert_equal(codec("flux", "comfyui").decode(written, shapes("flux")), tensors)


def test_a_fused_lokr_is_taken_apart_where_its_left_factor_allows() -> None:
    left, right = torch.randn(6, 4), torch.randn(16, 8)
    stem = "diffusion_model.double_blocks.0.img_attn.qkv"
    found = codec("flux", "comfyui").decode({f"{stem}.lokr_w1": left, f"{stem}.lokr_w2": right}, shapes("flux"))
    parts = [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    whole = torch.cat([torch.kron(found[f"{part}.lokr_w1"], found[f"{part}.lokr_w2"]) for part in parts])
    assert torch.equal(whole, torch.kron(left, right))
    odd = {f"{stem}.lokr_w1": torch.randn(4, 4), f"{stem}.lokr_w2": torch.randn(24, 8)}
    with pytest.raises(ValueError, match=r"double_blocks\.0\.img_attn\.qkv: this LoKr factor of 24 rows spans several"):
        codec("flux", "comfyui").decode(odd, shapes("flux"))


def test_unknown_formats_and_foreign_names_are_errors() -> None:
    with pytest.raises(ValueError, match="no key format 'a1111'; known: diffusers, kohya, comfyui, original"):
        codec("flux", "a1111")
    with pytest.raises(ValueError, match=r"unet\.x\.lora_A\.weight is not the name"):
        codec("flux", "kohya").encode({"unet.x.lora_A.weight": torch.zeros(1)})
    assert codec("wan", "auto").format == "comfyui"
