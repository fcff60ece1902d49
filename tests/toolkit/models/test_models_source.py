"""Where parts come from: roots, overrides, identities, and errors that say what would be right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

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
    with pytest.raises(ValueError, match=r"holds no vae: name a folder with vae/ or config\.json"):
        Source(str(tiny_flux), {"vae": str(tmp_path)}).load("vae", torch.float32)


def test_an_unknown_builtin_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no embedded model 'builtin:tiny-fluxx' \(known: .*\)"):
        Source("builtin:tiny-fluxx").load("vae", torch.float32)


def test_a_root_that_is_no_pipeline_is_an_error(tiny_flux: Path, tmp_path: Path):
    for root in (tmp_path, tiny_flux / "vae"):
        with pytest.raises(ValueError, match=r"has no model_index\.json; name a model in diffusers format"):
            Source(str(root)).load("vae", torch.float32)


@pytest.mark.parametrize("entry", [None, ["os", "PathLike"], ["my_package", "Vae"]])
def test_only_known_libraries_are_imported(tiny_flux: Path, tmp_path: Path, entry: list[str] | None):
    index = json.loads((tiny_flux / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "vae": entry}))
    with pytest.raises(ValueError, match="names no part 'vae' of diffusers or transformers"):
        Source(str(tmp_path)).load("vae", torch.float32)


@pytest.fixture
def hub(tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub that holds owner/flux, of which the branch "small" has another VAE, and owner/vae."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, commit, branch in (("flux", "a" * 40, "main"), ("flux", "b" * 40, "small"), ("vae", "c" * 40, "main")):
        repository = tmp_path / f"models--owner--{name}"
        shutil.copytree(tiny_flux / "vae" if name == "vae" else tiny_flux, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / branch).write_text(commit)
    config = tmp_path / "models--owner--flux" / "snapshots" / ("b" * 40) / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.5', '"scaling_factor": 0.25'))
    file = config.with_name("diffusion_pytorch_model.safetensors")
    save_file({name: 2 * tensor for name, tensor in load_file(file).items()}, file)
    return tmp_path


def test_a_model_of_the_hub_is_read_from_its_cache_at_its_revision(hub: Path, tiny_flux: Path):
    source, other = Source("owner/flux"), Source("owner/flux", revision="small")
    assert source.config("vae")["scaling_factor"] == 0.5 and other.config("vae")["scaling_factor"] == 0.25
    assert source.location == "owner/flux"
    wanted = Source(str(tiny_flux))
    for name in ("vae", "text_encoder_2", "transformer"):
        assert torch.equal(weights(source.load(name, torch.float32)), weights(wanted.load(name, torch.float32)))
        assert (source.identity(name) == other.identity(name)) == (name != "vae")
    vae, other_vae = (weights(one.load("vae", torch.float32)) for one in (source, other))
    assert torch.equal(other_vae, 2 * vae)
    assert other.load("tokenizer_2", torch.float32)("a red circle").input_ids
    assert type(source.load("scheduler", torch.float32)).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_a_repository_of_one_part_and_a_file_in_a_repository(hub: Path, tiny_flux: Path):
    wanted = weights(Source(str(tiny_flux)).load("vae", torch.float32))
    file = "vae/diffusion_pytorch_model.safetensors"
    for override in (
        "owner/vae",
        "owner/flux",
        f"owner/flux/{file}",
        f"https://huggingface.co/owner/flux/blob/main/{file}",
        f"https://huggingface.co/owner/flux/resolve/{'a' * 40}/{file}?download=true",
    ):
        assert torch.equal(weights(Source(str(tiny_flux), {"vae": override}).load("vae", torch.float32)), wanted)


@pytest.mark.parametrize(
    ("root", "revision", "message"),
    [
        (
            "nobody/no-such-model",
            None,
            r"nobody/no-such-model: model_index\.json is not in the cache, and HF_HUB_OFFLINE",
        ),
        ("owner/flux", "large", r"owner/flux at revision large: model_index\.json .*--revision large"),
        ("owner/a/b", None, r"'owner/a/b' is neither here nor a name of the Hugging Face Hub"),
    ],
)
def test_what_the_hub_does_not_give_is_said(hub: Path, root: str, revision: str | None, message: str):
    with pytest.raises(ValueError, match=message):
        Source(root, revision=revision).load("vae", torch.float32)


def test_weights_that_are_not_in_the_cache_are_named(hub: Path):
    snapshot = hub / "models--owner--flux" / "snapshots" / ("a" * 40)
    (snapshot / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"owner/flux: vae/diffusion_pytorch_model\.safetensors is not in the cache"):
        Source("owner/flux").load("vae", torch.float32)


def test_shards_are_read_together(tiny_flux: Path, tmp_path: Path):
    copy = shutil.copytree(tiny_flux, tmp_path / "copy")
    module = Source(str(tiny_flux)).load("transformer", torch.float32)
    shutil.rmtree(copy / "transformer")
    module.save_pretrained(copy / "transformer", max_shard_size="100KB")
    assert len(list((copy / "transformer").glob("*.safetensors"))) > 2
    assert torch.equal(weights(Source(str(copy)).load("transformer", torch.float32)), weights(module))
    identity = Source(str(copy)).identity("transformer")
    (copy / "transformer" / "stray.safetensors").write_bytes(b"not a shard")
    assert Source(str(copy)).identity("transformer") == identity


def test_a_part_that_is_null_is_none(tiny_flux: Path, tmp_path: Path):
    index = json.loads((tiny_flux / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "text_encoder_3": [None, None]}))
    source = Source(str(tmp_path))
    assert source.has("vae") and not source.has("text_encoder_3") and not source.has("text_encoder_4")
    assert source.load("text_encoder_3", torch.float32) is None and source.identity("text_encoder_3") == "none"


def test_a_class_that_no_library_has(tiny_flux: Path):
    class OtherVae(AutoencoderKL):
        """Somebody's own."""

    source = Source(str(tiny_flux), classes={"vae": OtherVae})
    assert type(source.load("vae", torch.float32)) is OtherVae


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


def test_a_model_of_another_kind_is_told(tiny_flux: Path, tmp_path: Path):
    index = json.loads((tiny_flux / "model_index.json").read_text())
    del index["transformer"]
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ValueError, match=r"is a StableDiffusionXLPipeline without transformer; is model\.arch right"):
        Source(str(tmp_path)).config("transformer")
