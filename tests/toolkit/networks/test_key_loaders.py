"""Files in every format as diffusers reads them, and the names that ComfyUI and sd-scripts look up.

Sizes that diffusers' converters hard-code (3072 of FLUX.1, 2304 and 768 of Lumina 2) are those of the real models.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers import loaders as diffusers_loaders
from diffusers.loaders import lora_pipeline
from key_models import MODELS, SD_UNET, SDXL_UNET, lokr, lora, native, shapes
from torch import Tensor

from toolkit.networks.keys.codec import Codec

Tensors = dict[str, Tensor]
WIDE = {"flux": 3072, "chroma": 3072}


def encoded(name: str, format: str, tensors: Tensors) -> Tensors:
    return Codec(MODELS[name].names, MODELS[name].prefix, format).encode(tensors)


def wide_layers(name: str) -> Tensors:
    """LoRA of rank 1 for one block of each kind, at the width of the real model."""
    if name == "lumina2":
        sizes = {"attn.to_q": (2304, 2304), "attn.to_k": (768, 2304), "attn.to_v": (768, 2304)}
        sizes |= {"attn.to_out.0": (2304, 2304), "feed_forward.linear_2": (2304, 64)}
        sizes |= {f"feed_forward.linear_{number}": (64, 2304) for number in (1, 3)}
        blocks = {"layers.0": {**sizes, "norm1.linear": (64, 16)}, "context_refiner.0": sizes}
        layers = {f"{block}.{layer}": size for block, parts in blocks.items() for layer, size in parts.items()}
    else:
        scale = WIDE[name] // 32
        kept = [layer for layer in shapes(name) if "blocks.0" in layer]
        layers = {layer: (shapes(name)[layer][0] * scale, shapes(name)[layer][1] * scale) for layer in kept}
    made = {layer: lora(torch.Size(size), rank=1) for layer, size in layers.items()}
    return {f"transformer.{layer}.{suffix}": t for layer, tensors in made.items() for suffix, t in tensors.items()}


def changes(tensors: Tensors) -> Tensors:
    """What is added to each layer's output for some input, the same for equal widths."""
    found = {}
    for key in (key for key in tensors if key.endswith(".lora_B.weight")):
        down, up = tensors[key.replace("lora_B", "lora_A")].flatten(1), tensors[key].flatten(1)
        inputs = torch.randn(down.shape[1], 3, generator=torch.Generator().manual_seed(0))
        found[key.removesuffix(".lora_B.weight")] = up @ (down @ inputs)
    return found


def assert_same_changes(found: Tensors, wanted: Tensors) -> None:
    assert len(found) == len(wanted)
    torch.testing.assert_close(changes(found), changes(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mixin", "name", "formats"),
    [
        ("FluxLoraLoaderMixin", "flux", ("kohya", "diffusers")),
        ("FluxLoraLoaderMixin", "chroma", ("kohya", "diffusers")),
        ("Flux2LoraLoaderMixin", "flux2", ("kohya", "comfyui", "diffusers")),
        ("SD3LoraLoaderMixin", "sd3", ("diffusers",)),
        ("WanLoraLoaderMixin", "wan", ("kohya", "comfyui", "diffusers")),
        ("LTX2LoraLoaderMixin", "ltx2", ("comfyui", "diffusers")),
        ("LTXVideoLoraLoaderMixin", "ltx", ("comfyui", "diffusers")),
        ("Lumina2LoraLoaderMixin", "lumina2", ("comfyui", "diffusers")),
        ("QwenImageLoraLoaderMixin", "qwen_image", ("kohya", "comfyui", "diffusers")),
        ("ZImageLoraLoaderMixin", "zimage", ("kohya", "comfyui", "diffusers")),
        ("ErnieImageLoraLoaderMixin", "ernie_image", ("comfyui", "diffusers")),
        ("AuraFlowLoraLoaderMixin", "auraflow", ("diffusers",)),
        ("SanaLoraLoaderMixin", "sana", ("diffusers",)),
        ("CogView4LoraLoaderMixin", "cogview4", ("diffusers",)),
    ],
)
def test_diffusers_reads_the_formats_that_the_docs_say_it_reads(
    mixin: str, name: str, formats: tuple[str, ...]
) -> None:
    if name in (*WIDE, "lumina2"):
        tensors = wide_layers(name)
    else:
        tensors = {key: t for key, t in native(name, lora).items() if "blocks." in key or "layers." in key}
    loader = getattr(lora_pipeline, mixin)
    for format in formats:
        found = loader.lora_state_dict(dict(encoded(name, format, tensors)))
        assert_same_changes(found, tensors)
    assert MODELS[name].names.default in formats


@pytest.mark.parametrize(("name", "config"), [("sd1", SD_UNET), ("sdxl", SDXL_UNET)])
def test_diffusers_loads_kohya_files_of_a_unet_layer_by_layer(name: str, config: dict[str, Any]) -> None:
    # sd-scripts adapts Linear layers and convolutions of attention and residual blocks, and no others
    tensors = {key: t for key, t in native(name, lora).items() if "_blocks." in key or "mid_block." in key}
    unet = UNet2DConditionModel(**config)
    mixin = diffusers_loaders.StableDiffusionXLLoraLoaderMixin
    written = encoded(name, "kohya", tensors)
    state, alphas = mixin.lora_state_dict(dict(written), unet_config=unet.config)[:2]
    mixin.load_lora_into_unet(state, network_alphas=alphas, unet=unet, adapter_name="default")
    loaded = {
        f"unet.{layer}.{side}.weight": getattr(part, side)["default"].weight
        for layer, part in unet.named_modules()
        if hasattr(part, "lora_A")
        for side in ("lora_A", "lora_B")
    }
    assert set(loaded) == set(tensors)
    for key, tensor in tensors.items():
        torch.testing.assert_close(loaded[key], tensor)
        part = unet.get_submodule(key.removeprefix("unet.").rsplit(".lora_", 1)[0])
        assert part.scaling["default"] == 1


def test_diffusers_reads_lokr_in_its_own_format() -> None:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel(**MODELS["flux"].arguments)
    tensors = native("flux", lokr, keep="single_transformer_blocks")
    model.load_lora_adapter(encoded("flux", "diffusers", tensors), prefix="transformer")
    loaded = dict(model.named_parameters())
    for key, tensor in tensors.items():
        layer, suffix = key.removeprefix("transformer.").rsplit(".", 1)
        torch.testing.assert_close(loaded[f"{layer}.{suffix}.default_0"], tensor)


# What comfy/lora.py of ComfyUI maps (model_lora_keys_unet): `diffusion_model.` and the name of the weight in ComfyUI's
# model, which is the original release's; `lora_unet_` and the same underscored; and what unet_to_diffusers,
# flux_to_diffusers, mmdit_to_diffusers, pixart_to_diffusers, z_image_to_diffusers of comfy/utils.py translate.
# What networks/lora.py, lora_flux.py, lora_sd3.py, lora_lumina.py of sd-scripts look up: `lora_unet_` and the
# underscored name of the module in sd-scripts' model, which has diffusers' names for SD 1/2 and original ones else.
LOOKED_UP = [
    (
        "sd1",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight",
        "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_out.0.lora_B.weight",
    ),
    (
        "sd1",
        "up_blocks.0.upsamplers.0.conv",
        "lora_unet_up_blocks_0_upsamplers_0_conv.lora_up.weight",
        "diffusion_model.output_blocks.2.1.conv.lora_B.weight",
    ),
    (
        "sdxl",
        "up_blocks.0.attentions.2.transformer_blocks.1.ff.net.0.proj",
        "lora_unet_output_blocks_2_1_transformer_blocks_1_ff_net_0_proj.lora_up.weight",
        "diffusion_model.output_blocks.2.1.transformer_blocks.1.ff.net.0.proj.lora_B.weight",
    ),
    (
        "sdxl",
        "down_blocks.1.resnets.0.conv_shortcut",
        "lora_unet_input_blocks_4_0_skip_connection.lora_up.weight",
        "diffusion_model.input_blocks.4.0.skip_connection.lora_B.weight",
    ),
    (
        "flux",
        "single_transformer_blocks.1.proj_out",
        "lora_unet_single_blocks_1_linear2.lora_up.weight",
        "diffusion_model.single_blocks.1.linear2.lora_B.weight",
    ),
    (
        "flux",
        "transformer_blocks.1.ff_context.net.2",
        "lora_unet_double_blocks_1_txt_mlp_2.lora_up.weight",
        "diffusion_model.double_blocks.1.txt_mlp.2.lora_B.weight",
    ),
    (
        "flux2",
        "single_transformer_blocks.0.attn.to_qkv_mlp_proj",
        "lora_unet_single_blocks_0_linear1.lora_up.weight",
        "diffusion_model.single_blocks.0.linear1.lora_B.weight",
    ),
    (
        "chroma",
        "transformer_blocks.0.attn.to_add_out",
        "lora_unet_double_blocks_0_txt_attn_proj.lora_up.weight",
        "diffusion_model.double_blocks.0.txt_attn.proj.lora_B.weight",
    ),
    (
        "sd3",
        "transformer_blocks.0.ff.net.0.proj",
        "lora_unet_joint_blocks_0_x_block_mlp_fc1.lora_up.weight",
        "diffusion_model.joint_blocks.0.x_block.mlp.fc1.lora_B.weight",
    ),
    (
        "lumina2",
        "layers.1.feed_forward.linear_3",
        "lora_unet_layers_1_feed_forward_w3.lora_up.weight",
        "diffusion_model.layers.1.feed_forward.w3.lora_B.weight",
    ),
    (
        "zimage",
        "layers.1.attention.to_out.0",
        "lora_unet_layers_1_attention_out.lora_up.weight",
        "diffusion_model.layers.1.attention.to_out.0.lora_B.weight",
    ),
    (
        "qwen_image",
        "transformer_blocks.1.img_mlp.net.0.proj",
        "lora_unet_transformer_blocks_1_img_mlp_net_0_proj.lora_up.weight",
        "diffusion_model.transformer_blocks.1.img_mlp.net.0.proj.lora_B.weight",
    ),
    (
        "wan",
        "blocks.1.attn2.add_k_proj",
        "lora_unet_blocks_1_cross_attn_k_img.lora_up.weight",
        "diffusion_model.blocks.1.cross_attn.k_img.lora_B.weight",
    ),
    (
        "ltx2",
        "transformer_blocks.0.audio_to_video_attn.to_out.0",
        "lora_unet_transformer_blocks_0_audio_to_video_attn_to_out_0.lora_up.weight",
        "diffusion_model.transformer_blocks.0.audio_to_video_attn.to_out.0.lora_B.weight",
    ),
    (
        "pixart",
        "transformer_blocks.1.attn2.to_q",
        "lora_unet_blocks_1_cross_attn_q_linear.lora_up.weight",
        "diffusion_model.blocks.1.cross_attn.q_linear.lora_B.weight",
    ),
    (
        "auraflow",
        "single_transformer_blocks.0.ff.out_projection",
        "lora_unet_single_layers_0_mlp_c_proj.lora_up.weight",
        "diffusion_model.single_layers.0.mlp.c_proj.lora_B.weight",
    ),
]


@pytest.mark.parametrize(("name", "layer", "kohya", "comfyui"), LOOKED_UP)
def test_names_are_those_that_comfyui_and_sd_scripts_look_up(name: str, layer: str, kohya: str, comfyui: str) -> None:
    tensors = native(name, lora, keep=layer)
    stem = kohya.removesuffix(".lora_up.weight")
    assert set(encoded(name, "kohya", tensors)) == {kohya, f"{stem}.lora_down.weight", f"{stem}.alpha"}
    assert encoded(name, "kohya", tensors)[f"{stem}.alpha"] == 2
    assert set(encoded(name, "comfyui", tensors)) == {comfyui, comfyui.replace("lora_B", "lora_A")}
    prefix = MODELS[name].prefix
    diffusers = {f"{prefix}{layer}.lora_A.weight", f"{prefix}{layer}.lora_B.weight"}
    assert set(encoded(name, "diffusers", tensors)) == diffusers


@pytest.mark.parametrize(
    ("name", "layer", "format", "stem"),
    [
        ("flux", "transformer_blocks.0.attn.to_q", "comfyui", "transformer.transformer_blocks.0.attn.to_q"),
        ("flux", "transformer_blocks.0.attn.to_q", "kohya", "lycoris_transformer_blocks_0_attn_to_q"),
        ("zimage", "layers.0.attention.to_k", "kohya", "lycoris_layers_0_attention_to_k"),
        ("zimage", "layers.0.attention.to_k", "comfyui", "diffusion_model.layers.0.attention.to_k"),
        ("wan", "blocks.0.attn1.to_v", "comfyui", "diffusion_model.blocks.0.self_attn.v"),
        ("sdxl", "mid_block.attentions.0.proj_in", "kohya", "lora_unet_middle_block_1_proj_in"),
    ],
)
def test_lokr_of_parts_of_a_fused_layer_has_a_name_that_comfyui_looks_up(
    name: str, layer: str, format: str, stem: str
) -> None:
    written = encoded(name, format, native(name, lokr, keep=layer))
    alpha = {f"{stem}.alpha"} if format == "kohya" else set()
    assert set(written) == {f"{stem}.lokr_w1", f"{stem}.lokr_w2_a", f"{stem}.lokr_w2_b"} | alpha
    assert all(written[key] == 2 for key in alpha)
