"""The keys of `model:` become parts: where they come from, in which precision, quantized, streamed, compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from family_subject import loaded
from optimum.quanto import QTensor
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from toolkit.config.plugins import ModelPlugin
from toolkit.context import Context
from toolkit.models.family import Family
from toolkit.models.loading import make_parts
from toolkit.models.offload import LayerStream
from toolkit.models.parts import Parts
from toolkit.registry import get_registry

CPU = torch.device("cpu")
NAMES: dict[str, Any] = {
    "denoiser": "transformer",
    "text_encoders": ("text_encoder", "text_encoder_2"),
    "tokenizers": ("tokenizer", "tokenizer_2"),
    "checkpointing": False,
}


def flux_config(folder: Path, **keys: object) -> ModelPlugin:
    plugin = get_registry().load("models", "flux")
    return plugin.model_validate({"arch": "flux", "name_or_path": str(folder), **keys})


def build(folder: Path, cpu: Context, **keys: object) -> Family:
    return flux_config(folder, **keys).build(cpu, checkpointing=False, bypass_guidance=False)


def test_quantize_covers_the_large_text_encoder_unless_told_otherwise(tiny_flux: Path, cpu: Context):
    def quantized(**keys: object) -> list[str]:
        parts = build(tiny_flux, cpu, **keys).parts
        names = []
        for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
            with parts.using(name):
                if any(isinstance(param, QTensor) for param in parts[name].parameters()):
                    names.append(name)
        return names

    assert quantized() == []
    assert quantized(quantize=True) == ["text_encoder_2", "transformer"]
    assert quantized(quantize=True, quantize_te=False) == ["transformer"]
    assert quantized(quantize_te=True, qtype_te="qint8") == ["text_encoder_2"]


def test_precision_is_per_part(tiny_flux: Path):
    config = flux_config(tiny_flux, vae_dtype="fp32", te_dtype="fp16")
    context = Context(CPU, torch.bfloat16, seed=1)
    parts = make_parts(
        config,
        context,
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        checkpointing=True,
    )
    found = {}
    for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
        with parts.using(name):
            found[name] = parts[name].dtype
            if name == "transformer":
                assert parts[name].is_gradient_checkpointing
    assert found == {
        "vae": torch.float32,
        "text_encoder": torch.float16,
        "text_encoder_2": torch.float16,
        "transformer": torch.bfloat16,
    }


def test_a_vae_that_overflows_in_fp16_is_kept_in_fp32(tiny_flux: Path):
    names = {"text_encoders": ("text_encoder", "text_encoder_2"), "tokenizers": ("tokenizer", "tokenizer_2")}
    for dtype, wanted in ((torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)):
        context = Context(CPU, dtype, seed=1)
        parts = make_parts(flux_config(tiny_flux), context, denoiser="transformer", **names, checkpointing=False)
        assert parts.source.config("vae")["force_upcast"]
        with parts.using("vae"):
            assert parts["vae"].dtype == wanted


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, {}),
        ({"vae_path": "/v"}, {"vae": "/v"}),
        ({"unet_path": "/u"}, {"transformer": "/u"}),
        ({"te_name_or_path": "/t"}, {"text_encoder_2": "/t", "tokenizer_2": "/t"}),
        (
            {"extras_name_or_path": "/e", "vae_path": "/v"},
            dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"), "/e") | {"vae": "/v"},
        ),
    ],
)
def test_paths_replace_parts(tiny_flux: Path, cpu: Context, keys: dict[str, str], wanted: dict[str, str]):
    parts = make_parts(
        flux_config(tiny_flux, **keys),
        cpu,
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2"),
        tokenizers=("tokenizer", "tokenizer_2"),
        checkpointing=False,
    )
    assert parts.source.overrides == wanted


def streams(parts: Parts, *names: str) -> list[int]:
    """How many layers of each part are streamed."""
    counts = []
    for name in names:
        with parts.using(name):
            stream = getattr(parts[name], "layer_stream", None)
            counts.append(len(stream.layers) if isinstance(stream, LayerStream) else 0)
    return counts


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, [0, 0]),
        ({"layer_offloading": True}, [2, 2]),
        ({"auto_memory": True, "layer_offloading_text_encoder_percent": 0.5}, [2, 1]),
        ({"layer_offloading": True, "layer_offloading_transformer_percent": 0}, [0, 2]),
        ({"low_vram": True}, [0, 0]),  # nothing to gain where all is on the CPU
    ],
)
def test_layers_are_streamed(tiny_flux: Path, cpu: Context, keys: dict[str, object], wanted: list[int]):
    assert streams(build(tiny_flux, cpu, **keys).parts, "transformer", "text_encoder_2") == wanted


def test_low_vram_quantizes_on_the_cpu_and_streams_the_text_encoder(tiny_flux: Path):
    context = Context(torch.device("meta"), torch.float32, seed=1)  # a device that is not the CPU
    for low_vram in (True, False):
        config = flux_config(tiny_flux, quantize=True, low_vram=low_vram)
        plans = make_parts(config, context, **NAMES).plans
        assert plans["text_encoder_2"].offload == (1.0 if low_vram else 0.0)
        for plan in plans.values():
            assert plan.quantization is not None and plan.quantization.device.type == ("cpu" if low_vram else "meta")


def test_excludes_are_those_of_the_family_and_of_the_user(tiny_flux: Path, cpu: Context):
    config = flux_config(tiny_flux, quantize=True, quantize_kwargs={"exclude": ["*.to_k"]})
    plan = make_parts(config, cpu, **NAMES, exclude=("norm_out.*",)).plans["transformer"]
    assert plan.quantization is not None and plan.quantization.exclude == ("norm_out.*", "*.to_k")


@pytest.mark.parametrize(("bits", "wanted"), [(16, None), (8, "qint8"), (4, "qint4")])
def test_bits_of_the_text_encoder(tiny_flux: Path, cpu: Context, bits: int, wanted: str | None):
    found = build(tiny_flux, cpu, text_encoder_bits=bits).parts.plans["text_encoder_2"].quantization
    assert (found.qtype if found else None) == wanted


def test_a_text_encoder_that_the_checkpoint_lacks_is_left_out(tiny_flux: Path, cpu: Context, tmp_path: Path):
    for entry in tiny_flux.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "model_index.json").unlink()
    index = (tiny_flux / "model_index.json").read_text()
    assert '"text_encoder_2"' in index
    (tmp_path / "model_index.json").write_text(
        index.replace('"T5EncoderModel"', "null").replace('"transformers",\n    null', "null,\n    null")
    )
    parts = make_parts(flux_config(tmp_path, quantize=True), cpu, **NAMES)
    assert not parts.source.has("text_encoder_2")
    assert {name for name, plan in parts.plans.items() if plan.quantization} == {"text_encoder", "transformer"}
    with parts.using("text_encoder_2"):
        assert parts["text_encoder_2"] is None


def test_a_single_file_takes_the_rest_from_the_extras(tiny_flux: Path, cpu: Context, tmp_path: Path):
    file = tmp_path / "flux.safetensors"
    save_file(load_file(next((tiny_flux / "transformer").glob("*.safetensors"))), file)
    source = build(file, cpu, extras_name_or_path=str(tiny_flux)).parts.source
    assert source.root == str(tiny_flux) and source.location == str(file)
    with pytest.raises(ValueError, match=r"one file.*FLUX\.1-dev: .* is not in the cache.*extras_name_or_path"):
        build(file, cpu)


def test_the_revision_is_that_of_the_repository_or_the_file(tiny_flux: Path, cpu: Context):
    def source(name: str, **keys: object) -> Any:
        return make_parts(flux_config(Path(name), revision="v2", **keys), cpu, **NAMES).source

    with pytest.raises(ValueError, match=r"owner/model at revision v2"):
        source("owner/model").index()
    with pytest.raises(ValueError, match=r"owner/model at revision v2: flux\.safetensors"):
        source("owner/model/flux.safetensors", extras_name_or_path=str(tiny_flux))._single_file("transformer")


def test_what_was_quantized_is_found_again(tiny_flux: Path, cpu: Context, tmp_path: Path):
    context = replace(cpu, cache=tmp_path)
    for rank, wanted in ((1, 0), (0, 2), (0, 2)):
        family = build(tiny_flux, replace(context, rank=rank), quantize=True)
        with family.parts.using("transformer", "text_encoder_2"):
            pass
        assert len(list((tmp_path / "quantized").glob("*/index.json"))) == wanted


@pytest.mark.parametrize("by_block", [True, False])
def test_compiled_parts_compute_the_same(tiny_flux: Path, cpu: Context, by_block: bool):
    torch.manual_seed(0)
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 6, 16),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.ones(1),
        "pooled_projections": torch.randn(1, 64),
        "encoder_hidden_states": torch.randn(1, 3, 96),
        "txt_ids": torch.zeros(3, 3),
        "img_ids": torch.zeros(6, 3),
    }
    keys = {"compile": True, "block_compile": by_block, "cache_size_limit": 16}
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        with loaded(build(tiny_flux, cpu)) as family:
            wanted = family.denoiser(**inputs).sample
        with loaded(build(tiny_flux, cpu, **keys)) as family:
            compiled = [name for name, part in family.denoiser.named_modules() if part._compiled_call_impl is not None]
            assert compiled == (["transformer_blocks.0", "single_transformer_blocks.0"] if by_block else [""])
            assert torch.equal(family.denoiser(**inputs).sample, wanted)
    assert torch._dynamo.config.recompile_limit == 16


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"qtype": "qint5"}, r"qtype"),
        ({"layer_offloading_transformer_percent": 70}, r"less than or equal to 1"),
        ({"quantize_kwargs": {"exclud": []}}, r"exclud"),
        ({"text_encoder_bits": 3}, r"16, 8 or 4"),
    ],
)
def test_values_that_make_no_sense(tiny_flux: Path, keys: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        flux_config(tiny_flux, **keys)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, []),
        ({"compile": True, "block_compile": True}, []),
        ({"compile": True, "layer_offloading": True}, ["compile"]),
        ({"block_compile": True}, ["block_compile"]),
    ],
)
def test_keys_that_do_not_go_together(tiny_flux: Path, keys: dict[str, object], wanted: list[str]):
    assert [path[0] for path, _ in flux_config(tiny_flux, **keys).contradictions()] == wanted
