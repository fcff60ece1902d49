"""Modules are filled as their libraries would fill them, and never twice in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, WanTransformer3DModel
from transformers import CLIPTextModel, Gemma3ForCausalLM, Gemma3TextConfig, T5EncoderModel

from toolkit.models.fill import blocks, empty_module, fill, names_in_file
from toolkit.models.source import Source
from toolkit.models.weights import weights_of

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("vae", AutoencoderKL),
        ("text_encoder", CLIPTextModel),
        ("text_encoder_2", T5EncoderModel),
        ("transformer", FluxTransformer2DModel),
    ],
)
def test_a_part_equals_that_of_from_pretrained(tiny_flux: Path, name: str, cls: Any, dtype: torch.dtype):
    ours = Source(str(tiny_flux)).load(name, dtype)
    option = {"dtype": dtype} if hasattr(cls, "base_model_prefix") else {"torch_dtype": dtype}
    theirs = cls.from_pretrained(tiny_flux / name, **option)
    for found, wanted in (
        (ours.state_dict(), theirs.state_dict()),
        dict_pair(ours.named_buffers, theirs.named_buffers),
    ):
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key
    assert not ours.training and not any(param.requires_grad for param in ours.parameters())


def dict_pair(*named: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(named[0]()), dict(named[1]())


def test_what_a_class_keeps_in_fp32_is_kept(tmp_path: Path):
    config = {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 32, "num_layers": 1, "text_dim": 16}
    WanTransformer3DModel(in_channels=4, out_channels=4, freq_dim=16, **config).save_pretrained(tmp_path)
    theirs = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    module = empty_module(lambda: WanTransformer3DModel.from_config(theirs.config), torch.bfloat16)
    weights = weights_of(tmp_path.glob("*.safetensors"))
    ours = fill(module, weights, torch.bfloat16)
    found = {name: param.dtype for name, param in ours.named_parameters()}
    assert found == {name: param.dtype for name, param in theirs.named_parameters()}
    assert set(found.values()) == {torch.float32, torch.bfloat16}


def test_tied_weights_stay_tied(tiny_flux: Path):
    module = Source(str(tiny_flux)).load("text_encoder_2", torch.float32)
    assert module.shared.weight is module.encoder.embed_tokens.weight


def test_a_language_model_with_a_head(tmp_path: Path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3TextConfig(vocab_size=32, num_key_value_heads=1, head_dim=8, **sizes)
    wanted = Gemma3ForCausalLM(config).eval()
    wanted.save_pretrained(tmp_path)
    module = empty_module(lambda: Gemma3ForCausalLM(config), torch.float32)
    weights = weights_of(tmp_path.glob("*.safetensors"))
    names = names_in_file(module, weights)
    assert names is not None
    found = fill(module, weights.renamed(names), torch.float32).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(found(ids).logits, wanted(ids).logits)
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_the_file_is_closed_after_every_block(tiny_flux: Path):
    source = Source(str(tiny_flux))
    module = source.empty("transformer", torch.float32)
    seen: list[str] = []
    closed: list[int] = []
    fill(
        module,
        weights_of((tiny_flux / "transformer").glob("*.safetensors")),
        torch.float32,
        settle=lambda name, block: seen.append(name),
        close=lambda: closed.append(len(seen)),
    )
    assert seen == [*(name for name, _ in blocks(module)), ""] and len(closed) == len(seen)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of 16 blocks of about 12 MiB in fp32, in shards of 50 MB."""
    config = {"num_layers": 0, "num_single_layers": 16, "attention_head_dim": 32, "num_attention_heads": 16}
    with torch.device("meta"):
        module = FluxTransformer2DModel(in_channels=16, joint_attention_dim=32, pooled_projection_dim=32, **config)
    folder = tmp_path_factory.mktemp("large")
    module.to_empty(device="cpu")
    for param in module.parameters():
        param.data.fill_(0.01)
    module.save_pretrained(folder / "transformer", max_shard_size="50MB")
    (folder / "model_index.json").write_text('{"transformer": ["diffusers", "FluxTransformer2DModel"]}')
    return folder


@pytest.fixture(scope="module")
def peaks(large: Path) -> dict[str, int]:
    """The memory that each way to load took at its worst moment, in a process that has loaded nothing before."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell")
    script = Path(__file__).with_name("loading_memory.py")
    done = subprocess.run([sys.executable, script, large], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_weights_are_in_memory_once(peaks: dict[str, int]):
    block, whole = peaks["block"], peaks["whole"]
    assert whole > 15 * block > 150 * MIB
    assert whole / 2 < peaks["fp32"] < whole + 2 * block
    assert whole / 4 < peaks["bf16"] < whole / 2 + 2 * block


def test_quantized_weights_never_meet_the_whole_of_what_they_were(peaks: dict[str, int]):
    # a quarter of it, a block, and what quantizing a layer takes
    assert peaks["whole"] / 4 < peaks["qint8"] < 0.8 * peaks["whole"]
