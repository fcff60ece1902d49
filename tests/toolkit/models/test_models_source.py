"""Where parts come from: roots, overrides, identities, and errors that say what would be right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from extensions_built_in.flux.tiny import save_tiny
from toolkit.models.source import Source


@pytest.fixture(scope="module")
def other_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pipeline with other weights."""
    return save_tiny(tmp_path_factory.mktemp("other") / "flux", seed=1)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([param.flatten().float() for param in module.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["vae", "text_encoder", "text_encoder_2", "transformer"])
def test_parts_come_frozen_in_the_wanted_type(tiny_flux: Path, name: str, dtype: torch.dtype):
    module = Source(str(tiny_flux)).load(name, dtype)
    assert {param.dtype for param in module.parameters()} == {dtype}
    assert not module.training and not any(param.requires_grad for param in module.parameters())


def test_configs_are_read_without_weights(tiny_flux: Path, tmp_path: Path):
    for file in tiny_flux.rglob("*.json"):
        (tmp_path / file.relative_to(tiny_flux)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / file.relative_to(tiny_flux))
    source = Source(str(tmp_path))
    assert source.config("vae")["scaling_factor"] == 0.5
    assert source.config("scheduler")["shift"] == 3.0
    assert source.config("tokenizer_2")["model_max_length"] == 24


@pytest.mark.parametrize("place", ["whole model", "the part itself"])
def test_an_override_names_a_model_or_the_part(tiny_flux: Path, other_flux: Path, place: str):
    override = str(other_flux if place == "whole model" else other_flux / "vae")
    source = Source(str(tiny_flux), {"vae": override})
    wanted = weights(AutoencoderKL.from_pretrained(other_flux, subfolder="vae"))
    assert torch.equal(weights(source.load("vae", torch.float32)), wanted)
    assert source.identity("vae") == Source(str(other_flux)).identity("vae") != Source(str(tiny_flux)).identity("vae")
    assert source.config("vae") == Source(str(other_flux)).config("vae")
    assert source.identity("transformer") == Source(str(tiny_flux)).identity("transformer")


def test_a_text_encoder_folder_leaves_the_tokenizer_of_the_model(tiny_flux: Path):
    folder = str(tiny_flux / "text_encoder_2")
    source = Source(str(tiny_flux), {"text_encoder_2": folder, "tokenizer_2": folder})
    found, wanted = (one.load("tokenizer_2", torch.float32) for one in (source, Source(str(tiny_flux))))
    assert found("a red circle").input_ids == wanted("a red circle").input_ids
    assert source.load("text_encoder_2", torch.float32).config.d_model == 96


def test_an_override_without_the_part_is_an_error(tiny_flux: Path, tmp_path: Path):
    (tmp_path / "vae.safetensors").touch()
    for override in (tmp_path, tmp_path / "vae.safetensors"):
        with pytest.raises(ValueError, match=r"holds no vae: name a folder with vae/ or config\.json"):
            Source(str(tiny_flux), {"vae": str(override)}).load("vae", torch.float32)


def test_an_unknown_builtin_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no embedded model 'builtin:tiny-fluxx' \(known: .*\)"):
        Source("builtin:tiny-fluxx").load("vae", torch.float32)


def test_a_root_that_is_no_pipeline_is_an_error(tiny_flux: Path, tmp_path: Path):
    (tmp_path / "flux.safetensors").touch()
    for root in (tmp_path, tmp_path / "flux.safetensors", tiny_flux / "vae"):
        with pytest.raises(ValueError, match=r"has no model_index\.json; name a model in diffusers format"):
            Source(str(root)).load("vae", torch.float32)


@pytest.mark.parametrize("entry", [None, ["os", "PathLike"], ["my_package", "Vae"]])
def test_only_known_libraries_are_imported(tiny_flux: Path, tmp_path: Path, entry: list[str] | None):
    index = json.loads((tiny_flux / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "vae": entry}))
    with pytest.raises(ValueError, match="names no part 'vae' of diffusers or transformers"):
        Source(str(tmp_path)).load("vae", torch.float32)


def test_a_model_that_the_hub_does_not_give_is_not_called_a_folder():
    from huggingface_hub.errors import LocalEntryNotFoundError

    with pytest.raises(LocalEntryNotFoundError):
        Source("nobody/no-such-model").load("vae", torch.float32)


def test_identity_follows_the_weights(tiny_flux: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_flux, tmp_path / "copy")
    source, wanted = Source(str(copy)), Source(str(tiny_flux)).identity("vae")
    assert source.identity("vae") == wanted == source.identity("vae")

    file = next((copy / "vae").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert source.identity("vae") != wanted
    assert source.identity("text_encoder") == Source(str(tiny_flux)).identity("text_encoder")


def test_identity_follows_the_configuration(tiny_flux: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_flux, tmp_path / "copy")
    config = copy / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.5', '"scaling_factor": 0.25'))
    assert Source(str(copy)).identity("vae") != Source(str(tiny_flux)).identity("vae")
