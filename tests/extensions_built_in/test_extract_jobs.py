"""Extract jobs: a fine-tune, its difference as a LoRA, and the same predictions again in diffusers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from extensions_built_in.stable_diffusion.tiny import save_tiny, save_tiny_xl
from extensions_built_in.weights.extract_arch import guess_arch
from extensions_built_in.weights.extract_config import ExtractLora
from jobs import get_job
from toolkit.config import ConfigError, to_yaml
from toolkit.config.preflight import preflight
from toolkit.networks.keys.file import read_tensors

CLASSES: dict[str, Any] = {
    "transformer": FluxTransformer2DModel,
    "unet": UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
Wanted = Callable[[str, nn.Module], bool]


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sd1") / "base")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_xl(tmp_path_factory.mktemp("sdxl") / "base")


def is_adapted(name: str, layer: nn.Module) -> bool:
    """Linear layers and all convolutions, but not what text encoders have beside their layers."""
    return isinstance(layer, nn.Linear | nn.Conv2d) and name != "text_projection"


def in_blocks(name: str, layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and "blocks." in name


@torch.no_grad()
def tune(base: Path, folder: Path, wanted: Mapping[str, Wanted], rank: int = 0, size: float = 0.05) -> Path:
    """Write `folder` with the parts of `wanted`, whose layers got a difference of this rank; 0: of full rank."""
    rng = torch.Generator().manual_seed(5)
    for part, is_wanted in wanted.items():
        module = CLASSES[part].from_pretrained(base / part)
        for name, layer in module.named_modules():
            if is_wanted(name, layer):
                matrix = layer.weight.flatten(1)
                change = torch.randn(matrix.shape, generator=rng)
                if rank:
                    left, right = (
                        torch.randn(len(matrix), rank, generator=rng),
                        torch.randn(rank, matrix.shape[1], generator=rng),
                    )
                    change = left @ right / rank**0.5
                layer.weight += size * change.reshape(layer.weight.shape)
        module.save_pretrained(folder / part)
    return folder


def whole(base: Path, folder: Path, wanted: Mapping[str, Wanted], **options: Any) -> Path:
    """The same as a whole pipeline."""
    shutil.copytree(base, folder)
    for part in wanted:
        shutil.rmtree(folder / part)
    return tune(base, folder, wanted, **options)


def run_extract(base: Path, tuned: Path, out: Path, **keys: Any) -> Path:
    """Extract as a config of job `extract` does."""
    process = {"type": "lora", "dtype": "fp32", "device": "cpu", "output_path": str(out), **keys}
    config = {"name": "difference", "base_model": str(base), "extract_model": str(tuned), "process": [process]}
    job = get_job({"job": "extract", "config": config, "meta": {"note": "mine"}})
    assert not preflight(job)
    job.run()
    return out


def load(pipeline: type[DiffusionPipeline], folder: Path, lora: Path | None = None) -> Any:
    pipe = pipeline.from_pretrained(folder)
    if lora is not None:
        pipe.load_lora_weights(lora)
    return pipe


@torch.no_grad()
def unet_answer(pipe: Any) -> Tensor:
    """The prediction of a U-Net for a text that its own encoders have read."""
    rng = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 4, 8, 12, generator=rng)
    if hasattr(pipe, "text_encoder_2"):
        text, _, pooled, _ = pipe.encode_prompt("a small red circle", device="cpu", do_classifier_free_guidance=False)
        extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 96, 0, 0, 64, 96]])}}
    else:
        text = pipe.encode_prompt("a small red circle", "cpu", 1, False)[0]
        extra = {}
    return pipe.unet(noisy, 300.0, encoder_hidden_states=text, **extra).sample


@torch.no_grad()
def flux_answer(pipe: Any) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    model, config = pipe.transformer, pipe.transformer.config
    return model(
        hidden_states=torch.randn(1, 6, config.in_channels, generator=rng),
        encoder_hidden_states=torch.randn(1, 5, config.joint_attention_dim, generator=rng),
        pooled_projections=torch.randn(1, config.pooled_projection_dim, generator=rng),
        timestep=torch.tensor([0.4]),
        img_ids=torch.zeros(6, 3),
        txt_ids=torch.zeros(5, 3),
        guidance=torch.tensor([3.5]),
    ).sample


def assert_same(found: Tensor, wanted: Tensor, base: Tensor, near: float = 1e-3) -> None:
    """`found` is `wanted`, which is far from `base`."""
    scale = wanted.abs().max()
    assert (wanted - base).abs().max() > 0.05 * scale
    assert (found - wanted).abs().max() <= near * scale


@pytest.mark.parametrize(
    "keys", [{"linear": 1000}, {"mode": "ratio", "linear": 0}, {"mode": "quantile", "linear": 1.0}]
)
def test_full_rank_gives_back_a_fine_tuned_flux_in_diffusers(
    keys: dict[str, Any], tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # what a full fine-tune of aitk leaves: a folder with the trained part alone
    tuned = tune(tiny_flux, tmp_path / "job_000000100", {"transformer": in_blocks})
    file = run_extract(tiny_flux, tuned, tmp_path / "out/lora.safetensors", json_report=True, **keys)
    pipe = load(FluxPipeline, tiny_flux)
    base = flux_answer(pipe)
    pipe.load_lora_weights(file)
    found = flux_answer(pipe)
    pipe.unload_lora_weights()
    pipe.transformer = FluxTransformer2DModel.from_pretrained(tuned / "transformer")
    assert_same(found, flux_answer(pipe), base)
    report = json.loads(file.with_suffix(".json").read_text())
    assert report["energy"] == pytest.approx(1, abs=1e-4) and report["left_out"] == {}
    assert all(name.startswith("transformer.") and layer["rank"] > 8 for name, layer in report["layers"].items())
    assert "of the difference is kept" in capsys.readouterr().out


def test_a_known_rank_is_found_exactly_and_the_header_tells(tiny_flux: Path, tmp_path: Path) -> None:
    tuned = tune(tiny_flux, tmp_path / "tuned", {"transformer": in_blocks}, rank=3)
    file = run_extract(tiny_flux, tuned, tmp_path / "lora", linear=3, mode="fixed")
    file = file.with_suffix(".safetensors")
    tensors, header = read_tensors(file)
    before, after = (load_file(next((folder / "transformer").glob("*.safetensors"))) for folder in (tiny_flux, tuned))
    layers = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith("lora_A.weight")}
    differing = {name for name in before if not torch.equal(before[name], after[name])}
    assert {f"{layer.removeprefix('transformer.')}.weight" for layer in layers} == differing
    for layer in layers:
        name = f"{layer.removeprefix('transformer.')}.weight"
        found = before[name] + tensors[f"{layer}.lora_B.weight"] @ tensors[f"{layer}.lora_A.weight"]
        assert (found - after[name]).abs().max() <= 1e-4 * after[name].abs().max()
    told = json.loads(header["extraction"])
    assert told["energy"] == pytest.approx(1, abs=1e-6) and told["extract_model"] == str(tuned)
    assert {layer["rank"] for layer in told["least_energy"].values()} == {3}
    assert (header["ss_base_model_version"], header["base_model"]) == ("flux.1", str(tiny_flux))
    assert (header["ss_network_dim"], header["key_format"], header["note"]) == ("3", "diffusers", "mine")
    assert len(header["sshs_model_hash"]) == 64


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_locon_gives_back_a_stable_diffusion_with_its_text_encoders(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base = request.getfixturevalue(family)
    parts = ["unet", "text_encoder", *(["text_encoder_2"] if family == "sdxl" else [])]
    tuned = whole(base, tmp_path / "tuned", dict.fromkeys(parts, is_adapted), size=0.02)
    # kohya's names for SDXL are those of a U-Net with two residual blocks per level, which the tiny one has not
    format = "kohya" if family == "sd1" else "diffusers"
    keys = {"type": "locon", "arch": family, "mode": "fixed", "linear": 1000, "conv": 1000, "key_format": format}
    file = run_extract(base, tuned, tmp_path / "out.safetensors", **keys)
    pipeline = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    found = unet_answer(load(pipeline, base, file))
    assert_same(found, unet_answer(load(pipeline, tuned)), unet_answer(load(pipeline, base)))
    starts = ("lora_te_", "lora_unet_") if family == "sd1" else ("text_encoder.", "text_encoder_2.", "unet.")
    assert all(any(key.startswith(start) for key in load_file(file)) for start in starts)


def test_lora_leaves_out_convolutions_and_text_encoders_may_be_left_out(sd1: Path, tmp_path: Path) -> None:
    tuned = tune(sd1, tmp_path / "tuned", {"unet": is_adapted, "text_encoder": is_adapted})
    file = run_extract(sd1, tuned, tmp_path / "out.safetensors", extract_text_encoder=False)
    tensors = load_file(file)
    assert all(key.startswith("lora_unet_") and "_attentions_" in key for key in tensors)
    assert all(tensor.shape[2:] in ((), (1, 1)) for tensor in tensors.values())
    told = json.loads(read_tensors(file)[1]["extraction"])["left_out"]
    assert told["convolutions larger than 1x1"] > 5 and told["layers outside of the blocks"] > 5
    file = run_extract(sd1, tuned, tmp_path / "text.safetensors", extract_unet=False)
    assert all(key.startswith("lora_te_") for key in load_file(file))


def test_a_single_file_is_compared_with_a_folder(sd1: Path, tmp_path: Path) -> None:
    tuned = tune(sd1, tmp_path / "tuned", {"unet": in_blocks, "text_encoder": is_adapted}, rank=2)
    tensors = {f"unet.{k}": v for k, v in load_file(next((tuned / "unet").glob("*.safetensors"))).items()}
    text = load_file(next((tuned / "text_encoder").glob("*.safetensors")))
    save_file(tensors, tmp_path / "unet_only.safetensors")
    save_file(
        tensors | {f"cond_stage_model.transformer.{k}": v for k, v in text.items()}, tmp_path / "both.safetensors"
    )
    for name, has_text in (("unet_only", False), ("both", True)):
        file = run_extract(
            sd1, tmp_path / f"{name}.safetensors", tmp_path / f"out_{name}.safetensors", arch="sd1", linear=2
        )
        assert any(key.startswith("lora_te_") for key in load_file(file)) is has_text
        told = json.loads(read_tensors(file)[1]["extraction"])
        assert told["energy"] == pytest.approx(1, abs=1e-5)


def test_two_experts_have_a_file_each(tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    from extensions_built_in.wan.tiny import save_tiny as save_wan

    base = save_wan(tmp_path / "wan", boundary=0.875)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CLASSES, "transformer", WanTransformer3DModel)
        patch.setitem(CLASSES, "transformer_2", WanTransformer3DModel)
        tuned = tune(base, tmp_path / "tuned", {"transformer": in_blocks, "transformer_2": in_blocks}, rank=2)
    run_extract(base, tuned, tmp_path / "out/x.safetensors", arch="wan22_14b", linear=2)
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["x_high_noise.safetensors", "x_low_noise.safetensors"]
    assert not torch.equal(*(next(iter(load_file(file).values())) for file in files))


def test_what_cannot_be_extracted_is_said_and_nothing_is_written(tiny_flux: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match="does not differ from"):
        run_extract(tiny_flux, tiny_flux, out)
    other = whole(tiny_flux, tmp_path / "other", {})
    FluxTransformer2DModel.from_config(
        {**FluxTransformer2DModel.load_config(tiny_flux / "transformer"), "num_layers": 2}
    ).save_pretrained(other / "transformer")
    with pytest.raises(ValueError, match=r"tensors are in one checkpoint only.*two architectures"):
        run_extract(tiny_flux, other, out)
    packed = tune(tiny_flux, tmp_path / "packed", {"transformer": in_blocks})
    weights = next((packed / "transformer").glob("*.safetensors"))
    save_file({name: tensor.to(torch.float8_e4m3fn) for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match=r"is quantized .* use the checkpoint that it was made of"):
        run_extract(tiny_flux, packed, out)
    config = json.loads((packed / "transformer/config.json").read_text()) | {"quantization_config": {}}
    (packed / "transformer/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"is quantized, says its config\.json"):
        run_extract(tiny_flux, packed, out)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="holds none of transformer"):
        run_extract(tiny_flux, tmp_path / "nothing", out)
    assert not out.exists()


OLD = """
job: extract
config:
  name: "my model"
  base_model: runwayml/stable-diffusion-v1-5
  extract_model: someone/fine-tune
  output_folder: /tmp/somewhere
  is_v2: false
  dtype: fp16
  device: cpu
  process:
    - {type: locon, filename: "[name]_64_32.safetensors", dtype: fp16, mode: fixed, linear: 64, conv: 32}
    - {type: locon, output_path: /tmp/absolute.safetensors, mode: ratio, linear: 0.2, conv: 0.2}
    - {type: lora, mode: quantile, linear: 0.5, use_sparse_bias: false, sparsity: 0.98, disable_cp: true}
meta: {name: "[name]", version: "0.1"}
"""


def test_a_config_of_ai_toolkit_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    job = get_job(tmp_path / "old.yaml")
    first, second, third = processes = [cast(ExtractLora, process) for process in job.processes]
    assert all(one.model is not None and one.model.arch == "sd1" for one in processes)
    assert all((one.device, one.dtype) == ("cpu", "fp16") for one in processes)
    assert first.path(job.name) == Path("/tmp/somewhere/my model_64_32.safetensors")
    assert second.path(job.name) == Path("/tmp/absolute.safetensors")
    assert third.path(job.name) == Path("/tmp/somewhere/my model_quantile_0.5.safetensors")
    assert (first.numbers, second.numbers, third.numbers) == ((64, 32), (0.2, 0.2), (0.5, None))
    assert not first.rules().blocks_only and third.rules().blocks_only
    again = get_job(yaml.safe_load(to_yaml(job)))
    assert list(again.processes) == processes, "the resolved config is another job"
    (tmp_path / "v2.yaml").write_text(OLD.replace("is_v2: false", "is_v2: true"))
    for process in get_job(tmp_path / "v2.yaml").processes:
        assert "base: runwayml/stable-diffusion-v1-5 (sd2)" in process.plan()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear": 2.5}, "linear: is the rank in the mode fixed, a whole number, not 2.5"),
        ({"mode": "ratio", "linear": 16}, "linear: is a share between 0 and 1 in the mode ratio, not 16"),
        ({"use_sparse_bias": True}, "use_sparse_bias: not supported: neither diffusers nor ComfyUI"),
        ({"base_model": None}, "base_model: missing: the checkpoint that was fine-tuned"),
        ({"arch": "fluks"}, "arch: no arch is named 'fluks'"),
        ({"extract_unet": False, "extract_text_encoder": False}, "nothing is left to compare"),
        ({"base_model": None, "model": {"arch": "flux", "name_or_path": "a/b", "quantize": True}}, "remove this key"),
        ({"model": {"arch": "flux", "name_or_path": "a/b"}}, "is not model.name_or_path"),
    ],
)
def test_keys_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    process = {"type": "lora", "base_model": "owner/base", "extract_model": "owner/tuned", **change}
    with pytest.raises(ConfigError) as caught:
        get_job({"job": "extract", "config": {"name": "x", "process": [process]}})
    assert message in str(caught.value)


def test_keys_beside_process_belong_to_the_types_that_are_there() -> None:
    keys = {"type": "lora", "base_model": "owner/base", "extract_model": "owner/tuned"}
    with pytest.raises(ConfigError, match=r"config\.base_modle: unknown key; did you mean 'base_model'"):
        get_job({"job": "extract", "config": {"name": "x", "base_modle": "a/b", "process": [keys]}})
    hello = {"type": "captioner", "caption": {"type": "blip", "path_to_caption": "."}}
    with pytest.raises(ConfigError, match=r"config\.base_model: unknown key"):
        get_job({"job": "caption", "config": {"name": "x", "base_model": "a/b", "process": [hello]}})


def test_the_family_is_told_by_the_files(tiny_flux: Path, sdxl: Path, sd1: Path, tmp_path: Path) -> None:
    assert guess_arch(str(tiny_flux)) == guess_arch("builtin:tiny-flux") == "flux"
    assert guess_arch(str(sdxl)) == "sdxl"
    assert guess_arch(str(next((sdxl / "unet").glob("*.safetensors")))) == "sdxl"
    save_file(
        {"model.diffusion_model.input_blocks.1.1.attn2.to_k.weight": torch.zeros(8, 1024)}, tmp_path / "a.safetensors"
    )
    assert guess_arch(str(tmp_path / "a.safetensors")) == "sd2"
    assert guess_arch("stabilityai/stable-diffusion-xl-base-1.0") == "sdxl"
    assert guess_arch(str(sd1)) is None and guess_arch("owner/unknown") is None


@pytest.mark.parametrize("name", ["extract_lora", "extract_locon_sdxl", "extract_tiny"])
def test_examples_lack_nothing_but_the_files(name: str) -> None:
    job = get_job(Path(__file__).parents[2] / f"config/examples/{name}.yaml")
    assert job.kind == "extract" and job.processes
    wrong = [problem for problem in preflight(job) if "there is no file or folder" not in problem.message]
    assert not wrong
