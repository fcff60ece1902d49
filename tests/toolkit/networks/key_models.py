"""Real diffusers classes, small, with the tables that say how other programs name their layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from extensions_built_in.auraflow.keys import AURAFLOW_KEYS
from extensions_built_in.chroma.keys import CHROMA_KEYS
from extensions_built_in.cogview4.keys import COGVIEW4_KEYS
from extensions_built_in.ernie_image.keys import ERNIE_KEYS
from extensions_built_in.flux.keys import FLUX_KEYS
from extensions_built_in.flux2.keys import FLUX2_KEYS
from extensions_built_in.ltx.keys import LTX_KEYS
from extensions_built_in.ltx2.keys import LTX2_KEYS
from extensions_built_in.lumina2.keys import LUMINA2_KEYS
from extensions_built_in.pixart.keys import PIXART_KEYS
from extensions_built_in.qwen_image.keys import QWEN_KEYS
from extensions_built_in.sana.keys import SANA_KEYS
from extensions_built_in.sd3.keys import SD3_KEYS
from extensions_built_in.stable_diffusion.keys import SD_KEYS, SDXL_KEYS
from extensions_built_in.wan.keys import WAN_KEYS
from extensions_built_in.zimage.keys import ZIMAGE_KEYS
from toolkit.config.key_names import KeyNames

_UNET = {"layers_per_block": 2, "norm_num_groups": 8, "cross_attention_dim": 32, "attention_head_dim": 4}
SD_UNET: dict[str, Any] = {**_UNET, "block_out_channels": (16, 16, 32, 32)}
SDXL_UNET: dict[str, Any] = {
    **_UNET,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}


@dataclass(frozen=True)
class Model:
    """A class of diffusers, arguments that make it small, and the names of its layers."""

    names: KeyNames
    class_name: str
    arguments: Mapping[str, Any]
    prefix: str = "transformer."


MODELS = {
    "sd1": Model(SD_KEYS, "UNet2DConditionModel", SD_UNET, "unet."),
    "sdxl": Model(SDXL_KEYS, "UNet2DConditionModel", SDXL_UNET, "unet."),
    "flux": Model(
        FLUX_KEYS,
        "FluxTransformer2DModel",
        {"num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16},
    ),
    "chroma": Model(
        CHROMA_KEYS,
        "ChromaTransformer2DModel",
        {
            "num_layers": 1,
            "num_single_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "approximator_hidden_dim": 16,
        },
    ),
    "flux2": Model(
        FLUX2_KEYS,
        "Flux2Transformer2DModel",
        {"num_layers": 2, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16},
    ),
    "sd3": Model(
        SD3_KEYS,
        "SD3Transformer2DModel",
        {"num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16, "caption_projection_dim": 32}
        | {"dual_attention_layers": (0,)},
    ),
    "lumina2": Model(
        LUMINA2_KEYS,
        "Lumina2Transformer2DModel",
        {"hidden_size": 48, "num_layers": 2, "num_attention_heads": 3, "num_kv_heads": 1, "cap_feat_dim": 16},
    ),
    "zimage": Model(
        ZIMAGE_KEYS,
        "ZImageTransformer2DModel",
        {"dim": 48, "n_layers": 2, "n_heads": 3, "n_kv_heads": 3, "cap_feat_dim": 16} | {"axes_dims": [4, 6, 6]},
    ),
    "qwen_image": Model(
        QWEN_KEYS, "QwenImageTransformer2DModel", {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    ),
    "wan": Model(
        WAN_KEYS,
        "WanTransformer3DModel",
        {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 48}
        | {"image_dim": 16, "added_kv_proj_dim": 32},
    ),
    "ltx": Model(
        LTX_KEYS, "LTXVideoTransformer3DModel", {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
    ),
    "ltx2": Model(
        LTX2_KEYS,
        "LTX2VideoTransformer3DModel",
        {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "cross_attention_dim": 32}
        | {"audio_num_attention_heads": 2, "audio_attention_head_dim": 8, "audio_cross_attention_dim": 16},
    ),
    "pixart": Model(
        PIXART_KEYS,
        "PixArtTransformer2DModel",
        {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
        | {"caption_channels": 16, "cross_attention_dim": 32, "sample_size": 128},
    ),
    "auraflow": Model(
        AURAFLOW_KEYS,
        "AuraFlowTransformer2DModel",
        {"num_mmdit_layers": 1, "num_single_dit_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16}
        | {"caption_projection_dim": 32},
    ),
    "sana": Model(
        SANA_KEYS,
        "SanaTransformer2DModel",
        {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "num_cross_attention_heads": 2}
        | {"cross_attention_head_dim": 16, "cross_attention_dim": 32},
    ),
    "cogview4": Model(
        COGVIEW4_KEYS,
        "CogView4Transformer2DModel",
        {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16},
    ),
    "ernie_image": Model(
        ERNIE_KEYS, "ErnieImageTransformer2DModel", {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 2}
    ),
}


@cache
def shapes(name: str) -> dict[str, torch.Size]:
    """Shape of the weight of every Linear and Conv2d of the model, by the layer's name."""
    import diffusers

    model = MODELS[name]
    with torch.device("meta"):
        module = getattr(diffusers, model.class_name)(**model.arguments)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {layer: part.weight.shape for layer, part in module.named_modules() if isinstance(part, kinds)}


def lora(shape: torch.Size, rank: int = 2) -> dict[str, Tensor]:
    """LoRA of one layer, with the kernel of a convolution in `lora_A`."""
    down, up = torch.randn(rank, *shape[1:]), torch.randn(shape[0], rank, *[1] * (len(shape) - 2))
    return {"lora_A.weight": down, "lora_B.weight": up}


def dora(shape: torch.Size) -> dict[str, Tensor]:
    """LoRA with magnitudes, in the shapes of peft."""
    magnitude = torch.rand(shape[0]) if len(shape) == 2 else torch.rand(1, shape[0], 1, 1)
    return {**lora(shape), "lora_magnitude_vector": magnitude}


def lokr(shape: torch.Size) -> dict[str, Tensor]:
    """A Kronecker product, the right factor of rank 2."""
    left = torch.randn(2, 2)
    right = torch.randn(shape[0] // 2, 2), torch.randn(2, shape[1] // 2 * shape[2:].numel())
    return {"lokr_w1": left, "lokr_w2_a": right[0], "lokr_w2_b": right[1]}


def loha(shape: torch.Size) -> dict[str, Tensor]:
    """A Hadamard product of two of rank 2."""
    columns = shape[1:].numel()
    pairs = [(torch.randn(shape[0], 2), torch.randn(2, columns)) for _ in range(2)]
    (one, two), (three, four) = pairs
    return {"hada_w1_a": one, "hada_w1_b": two, "hada_w2_a": three, "hada_w2_b": four}


def native(name: str, make: Callable[[torch.Size], dict[str, Tensor]], keep: str = "") -> dict[str, Tensor]:
    """A file's tensors for all layers whose names have `keep` at their start or after a dot, under native names."""
    prefix = MODELS[name].prefix
    found = {layer: make(shape) for layer, shape in shapes(name).items() if f".{keep}" in f".{layer}"}
    return {f"{prefix}{layer}.{suffix}": t for layer, tensors in found.items() for suffix, t in tensors.items()}
