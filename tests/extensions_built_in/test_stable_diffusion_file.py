"""A Stable Diffusion XL checkpoint in one file, laid out as it was first released: what most users have."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from family_contract import assert_differs, assert_near
from family_subject import Subject, loaded
from safetensors.torch import save_file
from stable_diffusion_case import CASES, xl
from torch import Tensor

from extensions_built_in.stable_diffusion.config import Sdxl
from extensions_built_in.stable_diffusion.tiny import save_tiny_xl

Rules = tuple[tuple[str, str], ...]
"""Pairs (regular expression, replacement) that are applied in turn to diffusers' names."""

RESNET: Rules = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
# the tiny U-Net: two down blocks of one residual block each, two up blocks of two
UNET: Rules = (
    (r"^down_blocks\.0\.resnets\.0\.", "input_blocks.1.0."),
    (r"^down_blocks\.0\.downsamplers\.0\.conv\.", "input_blocks.2.0.op."),
    (r"^down_blocks\.1\.resnets\.0\.", "input_blocks.3.0."),
    (r"^down_blocks\.1\.attentions\.0\.", "input_blocks.3.1."),
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
    (r"^up_blocks\.0\.resnets\.(\d)\.", r"output_blocks.\1.0."),
    (r"^up_blocks\.0\.attentions\.(\d)\.", r"output_blocks.\1.1."),
    (r"^up_blocks\.0\.upsamplers\.0\.", "output_blocks.1.2."),
    (r"^up_blocks\.1\.resnets\.0\.", "output_blocks.2.0."),
    (r"^up_blocks\.1\.resnets\.1\.", "output_blocks.3.0."),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
)
VAE: Rules = (
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.attn_1\.group_norm\.", ".attn_1.norm."),
    (r"\.attn_1\.to_([qkv])\.", r".attn_1.\1."),
    (r"\.attn_1\.to_out\.0\.", ".attn_1.proj_out."),
    (r"\.down_blocks\.(\d)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d)\.downsamplers\.0\.", r".down.\1.downsample."),
    # the original counts these from the picture
    (r"\.up_blocks\.0\.", ".up.1."),
    (r"\.up_blocks\.1\.", ".up.0."),
    (r"\.up\.(\d)\.resnets\.", r".up.\1.block."),
    (r"\.up\.(\d)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
OPEN_CLIP: Rules = (
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.self_attn\.", ".attn."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def renamed(tensors: Mapping[str, Tensor], rules: Iterable[tuple[str, str]], prefix: str) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[prefix + name] = tensor.contiguous()
    return found


def unet(module: Any) -> dict[str, Tensor]:
    weights = module.state_dict()
    blocks = {name: tensor for name, tensor in weights.items() if ".resnets." in name}
    rest = {name: tensor for name, tensor in weights.items() if name not in blocks}
    prefix = "model.diffusion_model."
    return {**renamed(blocks, (*RESNET, *UNET), prefix), **renamed(rest, UNET, prefix)}


def vae(module: Any) -> dict[str, Tensor]:
    found = renamed(module.state_dict(), VAE, "first_stage_model.")
    # attention over pixels was made of convolutions
    return {name: t[..., None, None] if ".attn_1." in name and t.ndim == 2 else t for name, t in found.items()}


def open_clip(module: Any) -> dict[str, Tensor]:
    weights = dict(module.state_dict())
    found = {"conditioner.embedders.1.model.text_projection": weights.pop("text_projection.weight").T.contiguous()}
    for layer in range(module.config.num_hidden_layers):
        stem = f"text_model.encoder.layers.{layer}.self_attn."
        for kind in ("weight", "bias"):
            parts = [weights.pop(f"{stem}{letter}_proj.{kind}") for letter in "qkv"]
            weights[f"{stem}in_proj_{kind}"] = torch.cat(parts)
    return found | renamed(weights, OPEN_CLIP, "conditioner.embedders.1.model.")


def clip(module: Any) -> dict[str, Tensor]:
    names = {name if name.startswith("text_model.") else f"text_model.{name}" for name in module.state_dict()}
    tensors = dict(zip(sorted(names), (t for _, t in sorted(module.state_dict().items())), strict=True))
    return renamed(tensors, (), "conditioner.embedders.0.transformer.")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES["sdxl"], tmp_path_factory.mktemp("stable_diffusion_file") / "sdxl")


def test_a_whole_checkpoint_in_one_file(sdxl: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = sdxl.pipeline
    tensors = unet(parts.unet) | vae(parts.vae) | clip(parts.text_encoder) | open_clip(parts.text_encoder_2)
    save_file(tensors, tmp_path / "checkpoint.safetensors")
    other = Subject(xl("sdxl", lambda folder: save_tiny_xl(folder, seed=1)), tmp_path / "other")
    for name in ("tokenizer", "tokenizer_2"):  # words of one count get their numbers in any order
        shutil.copytree(sdxl.folder / name, other.folder / name, dirs_exist_ok=True)
    # stands for the family's usual repository, from which configurations and tokenizers come
    monkeypatch.setattr(Sdxl, "example", str(other.folder))
    family = other.build(name_or_path=str(tmp_path / "checkpoint.safetensors"))
    plain, foreign = sdxl.build(), other.build()
    with loaded(family), loaded(plain), loaded(foreign), torch.no_grad():
        wanted = sdxl.render(plain)
        assert_differs(sdxl.render(foreign), wanted, "another checkpoint")
        assert_near(sdxl.render(family), wanted, "latents", 1e-6)
        assert_near(family.decode(wanted), plain.decode(wanted), "the picture", 1e-6)
        assert_near(
            family.encode_image(sdxl.pixels(plain)), plain.encode_image(sdxl.pixels(plain)), "its latents", 1e-6
        )
