"""Single files in the layouts in which checkpoints are passed around give the same weights as the diffusers folder."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from extensions_built_in.stable_diffusion.tiny import save_tiny, save_tiny_xl
from toolkit.config.plugins import ModelPlugin
from toolkit.context import Context
from toolkit.models.parts import Parts
from toolkit.models.source import Source
from toolkit.registry import get_registry

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # parts are freed by collecting garbage, which is quick if it need not look at the imported libraries
    gc.freeze()
    return save_tiny(tmp_path_factory.mktemp("sd1") / "model")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_xl(tmp_path_factory.mktemp("sdxl") / "model")


def weights(folder: Path, part: str) -> Tensors:
    return load_file(next((folder / part).glob("*.safetensors")))


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def renamed(tensors: Mapping[str, Tensor], rules: list[tuple[str, str]]) -> Tensors:
    """The tensors with every rule (pattern, replacement) applied to their names in turn."""
    found = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        found[name] = tensor
    return found


def original_unet(tensors: Mapping[str, Tensor], layers_per_block: int = 1) -> Tensors:
    """The names of CompVis: all blocks of a side are numbered through."""
    down, up = layers_per_block + 1, layers_per_block + 1

    def number(match: re.Match[str]) -> str:
        side, block, kind, index = match[1], int(match[2]), match[3], int(match[4])
        if kind in ("downsamplers", "upsamplers"):
            place = (block + 1) * down if side == "down" else block * up + up - 1
            inner = "0.op" if side == "down" else "1.conv" if block > 0 else "2.conv"
        else:
            place = 1 + block * down + index if side == "down" else block * up + index
            inner = "0" if kind == "resnets" else "1"
        return f"{'input' if side == 'down' else 'output'}_blocks.{place}.{inner}"

    found = {}
    for name, tensor in tensors.items():
        name = re.sub(r"(down|up)_blocks\.(\d+)\.(downsamplers|upsamplers)\.(\d+)\.conv", number, name)
        name = re.sub(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)", number, name)
        found[name] = tensor
    rules = [
        (r"mid_block\.resnets\.0", "middle_block.0"),
        (r"mid_block\.attentions\.0", "middle_block.1"),
        (r"mid_block\.resnets\.1", "middle_block.2"),
        (r"((?:put|middle)_blocks?\.[\d.]+)norm1\.", r"\1in_layers.0."),
        (r"((?:put|middle)_blocks?\.[\d.]+)conv1\.", r"\1in_layers.2."),
        (r"((?:put|middle)_blocks?\.[\d.]+)norm2\.", r"\1out_layers.0."),
        (r"((?:put|middle)_blocks?\.[\d.]+)conv2\.", r"\1out_layers.3."),
        (r"time_emb_proj", "emb_layers.1"),
        (r"conv_shortcut", "skip_connection"),
        (r"^time_embedding\.linear_1", "time_embed.0"),
        (r"^time_embedding\.linear_2", "time_embed.2"),
        (r"^add_embedding\.linear_1", "label_emb.0.0"),
        (r"^add_embedding\.linear_2", "label_emb.0.2"),
        (r"^conv_in", "input_blocks.0.0"),
        (r"^conv_norm_out", "out.0"),
        (r"^conv_out", "out.2"),
    ]
    return with_prefix("model.diffusion_model.", renamed(found, rules))


def original_vae(tensors: Mapping[str, Tensor], prefix: str = "first_stage_model.") -> Tensors:
    """The names of CompVis; attention is a 1x1 convolution."""
    top = max(int(match[1]) for name in tensors if (match := re.search(r"up_blocks\.(\d+)", name)))
    rules = [
        (r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2"),
        (r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_(q|k|v)", r"mid.attn_1.\1"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"conv_norm_out", "norm_out"),
    ]
    found = renamed(tensors, rules)
    found = {
        re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{top - int(m[1])}.block.{m[2]}", name): tensor
        for name, tensor in found.items()
    }
    found = {
        re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{top - int(m[1])}.upsample", name): tensor
        for name, tensor in found.items()
    }
    is_attention = re.compile(r"mid\.attn_1\.(q|k|v|proj_out)\.weight")
    found = {name: tensor[:, :, None, None] if is_attention.search(name) else tensor for name, tensor in found.items()}
    return with_prefix(prefix, found)


def open_clip(tensors: Mapping[str, Tensor]) -> Tensors:
    """The names of OpenCLIP: one matrix for query, key and value, the projection the other way round."""
    rules = [
        (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
        (r"layer_norm1", "ln_1"),
        (r"layer_norm2", "ln_2"),
        (r"mlp\.fc1", "mlp.c_fc"),
        (r"mlp\.fc2", "mlp.c_proj"),
        (r"self_attn\.out_proj", "attn.out_proj"),
        (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
        (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
        (r"^text_model\.final_layer_norm", "ln_final"),
    ]
    found = renamed(tensors, rules)
    for name in [name for name in found if ".self_attn.q_proj." in name]:
        stem, leaf = name.split(".self_attn.q_proj.")
        parts = [found.pop(f"{stem}.self_attn.{letter}_proj.{leaf}") for letter in "qkv"]
        found[f"{stem}.attn.in_proj_{leaf}"] = torch.cat(parts)
    found["text_projection"] = found.pop("text_projection.weight").T.contiguous()
    return with_prefix("conditioner.embedders.1.model.", found)


def save(path: Path, *parts: Mapping[str, Tensor]) -> str:
    save_file({name: tensor.contiguous() for part in parts for name, tensor in part.items()}, path)
    return str(path)


def build(arch: str, **keys: Any) -> Parts:
    plugin: type[ModelPlugin] = get_registry().load("models", arch)
    context = Context(torch.device("cpu"), torch.float32, seed=1)
    config = plugin.model_validate({"arch": arch, **keys})
    return config.build(context, checkpointing=False, bypass_guidance=False).parts


def assert_same(parts: Parts, folder: Path, *names: str) -> None:
    for name in names:
        with parts.using(name):
            found, wanted = parts[name].state_dict(), Source(str(folder)).load(name, torch.float32).state_dict()
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


def test_a_whole_sd1_checkpoint_in_one_file(sd1: Path, tmp_path: Path):
    clip = with_prefix("cond_stage_model.transformer.text_model.", clip_names(weights(sd1, "text_encoder")))
    file = save(
        tmp_path / "sd1.safetensors", original_unet(weights(sd1, "unet")), original_vae(weights(sd1, "vae")), clip
    )
    parts = build("sd1", name_or_path=file, extras_name_or_path=str(sd1))
    # what is named for the other parts goes before what the file holds
    assert parts.source._single_file("vae") is None
    own = Parts(Source(str(sd1), checkpoint=file), torch.device("cpu"), torch.float32)
    assert all(own.source._single_file(name) == Path(file) for name in ("unet", "vae", "text_encoder"))
    assert_same(own, sd1, "unet", "vae", "text_encoder")
    assert_same(parts, sd1, "unet", "vae", "text_encoder")
    assert own.source.location == file and own.source.identity("vae") != Source(str(sd1)).identity("vae")


def clip_names(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def test_a_whole_sdxl_checkpoint_in_one_file(sdxl: Path, tmp_path: Path):
    first = with_prefix("conditioner.embedders.0.transformer.text_model.", clip_names(weights(sdxl, "text_encoder")))
    second = open_clip(weights(sdxl, "text_encoder_2"))
    unet, vae = original_unet(weights(sdxl, "unet")), original_vae(weights(sdxl, "vae"))
    source = Source(str(sdxl), checkpoint=save(tmp_path / "sdxl.safetensors", unet, vae, first, second))
    parts = Parts(source, torch.device("cpu"), torch.float32)
    assert_same(parts, sdxl, "unet", "vae", "text_encoder", "text_encoder_2")

    without = Source(str(sdxl), checkpoint=save(tmp_path / "without.safetensors", unet, first))
    assert without._single_file("text_encoder") is not None
    assert without._single_file("text_encoder_2") is None and without._single_file("vae") is None


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_a_vae_of_its_own_in_either_layout(sd1: Path, tmp_path: Path, prefix: str):
    original = save(tmp_path / "original.safetensors", original_vae(weights(sd1, "vae"), prefix))
    plain = save(tmp_path / "diffusers.safetensors", with_prefix(prefix, weights(sd1, "vae")))
    for file in (original, plain):
        assert_same(build("sd1", name_or_path=str(sd1), vae_path=file), sd1, "vae")


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "transformer."])
@pytest.mark.parametrize("key", ["name_or_path", "unet_path"])
def test_a_denoiser_with_any_prefix(tiny_flux: Path, tmp_path: Path, prefix: str, key: str):
    file = save(tmp_path / "flux.safetensors", with_prefix(prefix, weights(tiny_flux, "transformer")))
    keys = {"name_or_path": str(tiny_flux), "extras_name_or_path": str(tiny_flux), key: file}
    assert_same(build("flux", **keys), tiny_flux, "transformer", "vae", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize("prefix", ["", "text_encoders.t5xxl.transformer."])
def test_a_text_encoder_of_its_own(tiny_flux: Path, tmp_path: Path, prefix: str):
    file = save(tmp_path / "t5.safetensors", with_prefix(prefix, weights(tiny_flux, "text_encoder_2")))
    parts = build("flux", name_or_path=str(tiny_flux), te_name_or_path=file)
    assert_same(parts, tiny_flux, "text_encoder_2", "text_encoder")
    with parts.using("tokenizer_2"):
        assert parts["tokenizer_2"]("a red circle").input_ids


@pytest.mark.parametrize("suffix", ["scale_weight", "weight_scale"])
def test_scaled_eight_bit_weights_are_scaled(tiny_flux: Path, tmp_path: Path, suffix: str):
    tensors = weights(tiny_flux, "text_encoder_2")
    stored: Tensors = {"scaled_fp8": torch.empty(0)}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        if tensor.ndim == 2 and leaf == "weight" and "block" in name:
            scale = tensor.abs().max() / 448
            stored[name] = (tensor / scale).to(torch.float8_e4m3fn)
            stored[f"{stem}.{suffix}"] = scale
            stored[f"{stem}.scale_input"] = torch.tensor(1.0)
        else:
            stored[name] = tensor
    file = save(tmp_path / "t5.safetensors", stored)
    parts = build("flux", name_or_path=str(tiny_flux), te_name_or_path=file)
    with parts.using("text_encoder_2"):
        for name, found in parts["text_encoder_2"].state_dict().items():
            wanted = tensors.get(name, tensors["shared.weight"])
            assert (found - wanted).abs().max() <= 0.04 * wanted.abs().max(), name


def changed(change: Callable[[Tensors], object]) -> Callable[[Tensors], Tensors]:
    def apply(tensors: Tensors) -> Tensors:
        change(tensors)
        return tensors

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed(lambda tensors: tensors.pop("proj_out.weight")),
            r"does not fit FluxTransformer2DModel: 1 tensors are missing, e\.g\. proj_out\.weight",
        ),
        (
            lambda tensors: {"first": torch.zeros(2), "second": torch.zeros(2)},
            r"tensors are missing, e\.g\. .*; 2 others are not taken, e\.g\. first, second",
        ),
        (
            changed(lambda tensors: tensors.update({"proj_out.bias": torch.zeros(3)})),
            r"proj_out\.bias has the shape \(3,\), expected \(16,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    tiny_flux: Path, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
):
    file = save(tmp_path / "flux.safetensors", change(weights(tiny_flux, "transformer")))
    parts = build("flux", name_or_path=str(tiny_flux), unet_path=file)
    with pytest.raises(ValueError, match=message), parts.using("transformer"):
        pass


def test_tensors_that_nobody_takes_are_said(tiny_flux: Path, tmp_path: Path):
    tensors = weights(tiny_flux, "transformer") | {"stray.weight": torch.zeros(2)}
    parts = build("flux", name_or_path=str(tiny_flux), unet_path=save(tmp_path / "flux.safetensors", tensors))
    with pytest.warns(UserWarning, match=r"has no place for stray\.weight"), parts.using("transformer"):
        pass


def test_a_broken_file_is_named(tiny_flux: Path, tmp_path: Path):
    file = tmp_path / "flux.safetensors"
    file.write_bytes((next((tiny_flux / "transformer").glob("*.safetensors"))).read_bytes()[:-1000])
    parts = build("flux", name_or_path=str(tiny_flux), unet_path=str(file))
    with pytest.raises(ValueError, match=r"flux\.safetensors is no whole file of tensors"), parts.using("transformer"):
        pass


def test_the_old_attention_of_a_vae(sd1: Path, tmp_path: Path):
    rules = [(r"to_q", "query"), (r"to_k", "key"), (r"to_v", "value"), (r"to_out\.0", "proj_attn")]
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "config.json").write_text((sd1 / "vae" / "config.json").read_text())
    save(folder / "diffusion_pytorch_model.safetensors", renamed(weights(sd1, "vae"), rules))
    assert_same(build("sd1", name_or_path=str(sd1), vae_path=str(folder)), sd1, "vae")


def test_a_pickle_is_read_if_there_is_nothing_else(sd1: Path, tmp_path: Path):
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "config.json").write_text((sd1 / "vae" / "config.json").read_text())
    torch.save(weights(sd1, "vae"), folder / "diffusion_pytorch_model.bin")
    parts = build("sd1", name_or_path=str(sd1), vae_path=str(folder))
    assert_same(parts, sd1, "vae")

    torch.save(nn.Linear(2, 2), folder / "diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"is no whole file of tensors"), parts.using("vae"):
        pass
