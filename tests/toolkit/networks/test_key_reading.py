"""Files as other programs write them: every spelling, alphas, foreign keys, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from key_models import MODELS, shapes
from safetensors.torch import save_file
from torch import Tensor

from extensions_built_in.stable_diffusion.keys import SD_KEYS, SDXL_KEYS
from toolkit.config.key_names import KeyNames
from toolkit.networks.keys.codec import Codec
from toolkit.networks.keys.file import read_tensors

LAYER = "transformer_blocks.0.attn.to_q"
DOWN, UP = torch.randn(2, 32), torch.randn(32, 2)
FLUX = Codec(MODELS["flux"].names, "transformer.")


def delta(found: dict[str, Tensor], layer: str = f"transformer.{LAYER}") -> Tensor:
    return found[f"{layer}.lora_B.weight"] @ found[f"{layer}.lora_A.weight"]


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("transformer.{}.lora_A.weight", "transformer.{}.lora_B.weight"),
        ("transformer.{}.lora_A.default.weight", "transformer.{}.lora_B.default.weight"),
        ("transformer.{}.lora_down.weight", "transformer.{}.lora_up.weight"),
        ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
        ("transformer.base_model.model.{}.lora_A", "transformer.base_model.model.{}.lora_B"),
        ("diffusion_model.{}.lora_A.weight", "diffusion_model.{}.lora_B.weight"),
        ("{}.lora_A.weight", "{}.lora_B.weight"),
        ("lycoris_{_}.lora_down.weight", "lycoris_{_}.lora_up.weight"),
        ("lora_transformer_{_}.lora_down.weight", "lora_transformer_{_}.lora_up.weight"),
        ("lora_unet_{_}.lora_down.weight", "lora_unet_{_}.lora_up.weight"),
        ("transformer.{}_lora.down.weight", "transformer.{}_lora.up.weight"),
    ],
)
def test_every_spelling_of_a_layer_is_read(down: str, up: str) -> None:
    names = [key.replace("{}", LAYER).replace("{_}", LAYER.replace(".", "_")) for key in (down, up)]
    found = FLUX.decode(dict(zip(names, (DOWN, UP), strict=True)), shapes("flux"))
    assert torch.equal(delta(found), UP @ DOWN)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 6.0, -4.0, 0.0])
def test_alpha_over_rank_is_folded_in(alpha: float) -> None:
    stem = "lora_unet_double_blocks_0_img_mlp_0"
    keys = {f"{stem}.lora_down.weight": DOWN, f"{stem}.lora_up.weight": torch.randn(128, 2)}
    found = FLUX.decode({**keys, f"{stem}.alpha": torch.tensor(alpha)}, shapes("flux"))
    wanted = alpha / 2 * keys[f"{stem}.lora_up.weight"] @ DOWN
    torch.testing.assert_close(delta(found, "transformer.transformer_blocks.0.ff.net.0.proj"), wanted)


def test_numbers_of_8_bits_get_their_alpha_exactly() -> None:
    stem = f"transformer.{LAYER}"
    few = {f"{stem}.lora_A.weight": DOWN.to(torch.float8_e4m3fn), f"{stem}.lora_B.weight": UP.to(torch.float8_e5m2)}
    found = FLUX.decode({**few, f"{stem}.alpha": torch.tensor(8.0)}, shapes("flux"))
    down, up = (tensor.float() for tensor in few.values())
    torch.testing.assert_close(delta(found), 4 * up @ down)


def test_alpha_of_kronecker_and_hadamard_products_counts_where_a_factor_is_of_low_rank() -> None:
    stem, native = f"transformer.{LAYER}", f"transformer.{LAYER}"
    w1, w2 = torch.randn(2, 2), torch.randn(16, 16)
    whole = FLUX.decode(
        {f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2": w2, f"{stem}.alpha": torch.tensor(1e10)}, shapes("flux")
    )
    assert torch.equal(whole[f"{native}.lokr_w1"], w1)
    low = {f"{stem}.lokr_w1": w1, f"{stem}.lokr_w2_a": torch.randn(16, 4), f"{stem}.lokr_w2_b": torch.randn(4, 16)}
    low = FLUX.decode({**low, f"{stem}.alpha": torch.tensor(1.0)}, shapes("flux"))
    assert torch.equal(low[f"{native}.lokr_w1"], w1 / 4)
    hada = {f"{stem}.hada_w{n}_{side}": torch.randn(32, 32)[:, :8] for n in "12" for side in "a"}
    hada |= {f"{stem}.hada_w{n}_b": torch.randn(8, 32) for n in "12"}
    found = FLUX.decode({**hada, f"{stem}.alpha": torch.tensor(2.0)}, shapes("flux"))
    assert torch.equal(found[f"{native}.hada_w1_b"], hada[f"{stem}.hada_w1_b"] / 4)
    assert torch.equal(found[f"{native}.hada_w2_b"], hada[f"{stem}.hada_w2_b"])


def test_magnitudes_are_read_in_every_shape_but_per_column() -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    keys = {f"{stem}.lora_down.weight": DOWN, f"{stem}.lora_up.weight": UP}
    magnitude = torch.rand(32, 1)
    for name, tensor in (("dora_scale", magnitude), ("lora_magnitude_vector.weight", magnitude[:, 0])):
        found = FLUX.decode({**keys, f"{stem}.{name}": tensor}, shapes("flux"))
        out = "transformer.transformer_blocks.0.attn.to_out.0.lora_magnitude_vector"
        assert torch.equal(found[out], magnitude[:, 0])
    with pytest.raises(ValueError, match=r"DoRA magnitudes of shape \(1, 32\) are not one per output"):
        FLUX.decode({**keys, f"{stem}.dora_scale": magnitude.T}, shapes("flux"))


def test_a_tucker_core_becomes_part_of_lora_a() -> None:
    names, layer = Codec(SDXL_KEYS, "unet."), "down_blocks.0.resnets.0.conv1"
    down, mid, up = torch.randn(2, 16, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(16, 2, 1, 1)
    stem = "lora_unet_input_blocks_1_0_in_layers_2"
    keys = {f"{stem}.lora_down.weight": down, f"{stem}.lora_mid.weight": mid, f"{stem}.lora_up.weight": up}
    found = names.decode(keys, [layer])
    x = torch.randn(1, 16, 6, 6)
    three = torch.conv2d(torch.conv2d(torch.conv2d(x, down), mid, padding=1), up)
    two = torch.conv2d(torch.conv2d(x, found[f"unet.{layer}.lora_A.weight"], padding=1), up)
    torch.testing.assert_close(two, three, rtol=1e-4, atol=1e-4)


def test_old_diffusers_attention_processors_are_read() -> None:
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    found = Codec(SD_KEYS, "unet.").decode(
        {
            f"unet.{layer}.processor.to_q_lora.down.weight": DOWN,
            f"unet.{layer}.processor.to_q_lora.up.weight": UP,
            f"unet.{layer}.processor.to_out_lora.down.weight": DOWN,
            f"unet.{layer}.processor.to_out_lora.up.weight": UP,
        },
        [f"{layer}.to_q", f"{layer}.to_out.0"],
    )
    assert set(found) == {f"unet.{layer}.{n}.lora_{s}.weight" for n in ("to_q", "to_out.0") for s in "AB"}


def test_original_numbers_of_sd1_are_read_too() -> None:
    """ai-toolkit writes SD 1.x by the original release's block numbers, its upsampler without attention included."""
    stems = {
        "lora_unet_output_blocks_2_1_conv": "up_blocks.0.upsamplers.0.conv",
        "lora_unet_output_blocks_5_2_conv": "up_blocks.1.upsamplers.0.conv",
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k": (
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
        ),
        "lora_unet_input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "lora_unet_middle_block_1_proj_in": "mid_block.attentions.0.proj_in",
    }
    keys = {f"{stem}.lora_down.weight": DOWN for stem in stems} | {f"{stem}.lora_up.weight": UP for stem in stems}
    found = Codec(SD_KEYS, "unet.").decode(keys, stems.values())
    assert {key.removeprefix("unet.").removesuffix(".lora_A.weight") for key in found if "lora_A" in key} == set(
        stems.values()
    )


@pytest.mark.parametrize(
    ("names", "prefix", "stem"),
    [
        (SD_KEYS, "text_encoder.", "lora_te_text_model_encoder_layers_3_self_attn_q_proj"),
        (SDXL_KEYS, "text_encoder.", "lora_te1_text_model_encoder_layers_3_self_attn_q_proj"),
        (SDXL_KEYS, "text_encoder_2.", "lora_te2_text_model_encoder_layers_3_self_attn_q_proj"),
        (SDXL_KEYS, "text_encoder.", "text_encoder.text_model.encoder.layers.3.self_attn.q_proj"),
        (SDXL_KEYS, "text_encoder_2.", "text_encoders.clip_g.transformer.text_model.encoder.layers.3.self_attn.q_proj"),
    ],
)
@pytest.mark.parametrize("flat", [True, False], ids=["flat", "with text_model"])
def test_text_encoders_are_read_whatever_transformers_calls_their_layers(
    names: KeyNames, prefix: str, stem: str, flat: bool
) -> None:
    layer = ("" if flat else "text_model.") + "encoder.layers.3.self_attn.q_proj"
    keys = {f"{stem}.lora_down.weight": DOWN, f"{stem}.lora_up.weight": UP}
    others = {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight": DOWN, "text_encoder_3.x.lora_A.weight": DOWN}
    codec = Codec(names, prefix, "kohya")
    found = codec.decode({**keys, **others}, [layer])
    assert set(found) == {f"{prefix}{layer}.lora_{side}.weight" for side in "AB"}
    kohya = {SD_KEYS: "lora_te", SDXL_KEYS: "lora_te2" if "2" in prefix else "lora_te1"}[names]
    assert f"{kohya}_text_model_encoder_layers_3_self_attn_q_proj.alpha" in codec.encode(found)
    written = Codec(names, prefix, "comfyui").encode(found)
    assert f"{prefix}text_model.encoder.layers.3.self_attn.q_proj.lora_A.weight" in written


def test_keys_of_no_layer_are_an_error() -> None:
    keys = {"transformer.transformer_blocks.9.attn.to_q.lora_A.weight": DOWN, "lora_te1_x.alpha": DOWN}
    with pytest.raises(ValueError, match=r"1 of 2 keys name no layer of this network, e\.g\. transformer\.transf"):
        FLUX.decode(keys, shapes("flux"))
    with pytest.raises(ValueError, match=r"e\.g\. transformer\.proj_out\.weight: the file belongs to another model"):
        FLUX.decode({"transformer.proj_out.weight": DOWN}, shapes("flux"))
    with pytest.raises(ValueError, match=r"lora_B\.weight and lora_A\.weight come in pairs"):
        FLUX.decode({f"transformer.{LAYER}.lora_A.weight": DOWN}, shapes("flux"))
    pair = {f"transformer.{LAYER}.lora_A.weight": DOWN, f"transformer.{LAYER}.lora_B.weight": UP}
    with pytest.raises(ValueError, match="are of different ranks"):
        FLUX.decode({**pair, f"transformer.{LAYER}.lora_A.weight": DOWN[:1]}, shapes("flux"))
    with pytest.raises(ValueError, match="alpha has the shape"):
        FLUX.decode({**pair, f"transformer.{LAYER}.alpha": torch.ones(2)}, shapes("flux"))


def test_alphas_in_the_header_of_diffusers_count(tmp_path: Path) -> None:
    layers = [LAYER, "single_transformer_blocks.0.proj_out"]
    tensors = {f"transformer.{layer}.lora_{side}.weight": DOWN for layer in layers for side in "AB"}
    config = {"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"attn.to_q": 1}}
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()},
        tmp_path / "x.safetensors",
        {"lora_adapter_metadata": json.dumps(config), "a": "b"},
    )
    found, header = read_tensors(tmp_path / "x.safetensors")
    assert header["a"] == "b"
    assert [found[f"transformer.{layer}.alpha"].item() for layer in layers] == [1, 8]
    for config in ("{nonsense", '{"transformer.lora_alpha": null}',
                   '{"transformer.lora_alpha": 1, "transformer.alpha_pattern": {"(": 1}}'):  # fmt: skip
        save_file({f"transformer.{LAYER}.lora_A.weight": DOWN}, tmp_path / "y.safetensors",
                  {"lora_adapter_metadata": config})  # fmt: skip
        with pytest.raises(ValueError, match=r"y\.safetensors: lora_adapter_metadata in its header.* cannot be read"):
            read_tensors(tmp_path / "y.safetensors")
    (tmp_path / "bad.safetensors").write_text("no")
    with pytest.raises(ValueError, match=r"bad\.safetensors is not a readable safetensors file"):
        read_tensors(tmp_path / "bad.safetensors")
