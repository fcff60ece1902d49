"""Generating: the real tiny models make the pictures that they make in training, again only what is missing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_run import killed, kills
from PIL import Image
from safetensors.torch import load_file, save_file

from jobs import Stopped, get_job, run_job
from toolkit.networks.keys.family import names_of
from toolkit.sampling.picture_files import list_pictures, read_metadata
from toolkit.weights.base import open_base
from toolkit.weights.into_base import Added, plan_updates
from toolkit.weights.verify import compare

Make = Callable[..., dict[str, Any]]
ENDINGS = {".png", ".jpg", ".webp"}


def made(folder: Path) -> list[Path]:
    """The pictures of a folder by name."""
    found = folder.rglob("*") if folder.is_dir() else []
    return sorted(p for p in found if p.suffix in ENDINGS and p.name[0] != "." and "contact_sheet" not in p.name)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


@pytest.fixture
def generating(tiny_flux: Path, tmp_path: Path, quick_gc: None) -> Make:
    """A job `generate` of the tiny FLUX; `generate` is merged, all else replaces what was there."""

    def make(generate: dict[str, Any] | None = None, kind: str = "generate", **keys: Any) -> dict[str, Any]:
        making = {"width": 64, "height": 64, "sample_steps": 2, "guidance_scale": 1, "seed": 5, "prompts": ["a cat"]}
        process = {
            "type": "to_folder",
            "output_folder": str(tmp_path / "made"),
            "device": "cpu",
            "model": {"arch": "flux", "name_or_path": str(tiny_flux)},
            "generate": {**making, **(generate or {})},
            **keys,
        }
        return deepcopy({"job": kind, "config": {"name": "made", "process": [process]}})

    return make


def data_job(config: dict[str, Any], kind: str, folder: Path, **generate: Any) -> dict[str, Any]:
    """The same of data sets."""
    process = config["config"]["process"][0]
    kept = {key: process["generate"][key] for key in ("sample_steps", "guidance_scale", "seed")}
    datasets = [{"folder_path": str(folder), "resolution": 64}]
    process.update(type=kind, datasets=datasets, generate={**kept, **generate})
    return config


def test_names_sizes_metadata_and_the_sheet(generating: Make, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\ufeff# animals\na cat --d 9 --w 96\n\n  two dogs --n blurry\n", encoding="utf-8")
    generate = {"prompts": str(prompts), "num_repeats": 2, "prompt_file": True, "ext": "jpg"}
    run_job(generating(generate, kind="extension"))
    files = made(tmp_path / "made")
    assert [path.name.rpartition("_")[0] for path in files] == ["00000_9", "00001_5", "00002_10", "00003_6"]
    with Image.open(files[0]) as image:
        assert (image.size, image.format) == ((96, 64), "JPEG")
    facts = read_metadata(files[1])
    assert (facts["prompt"], facts["negative"], facts["seed"]) == ("two dogs", "blurry", 5)
    assert files[0].with_suffix(".txt").read_text(encoding="utf-8") == "a cat"
    assert (tmp_path / "made/contact_sheet.png").is_file()


def test_only_what_is_missing_is_made_again_the_same(generating: Make, tmp_path: Path, capsys: Any) -> None:
    run_job(generating({"prompts": ["a cat", "two dogs"], "num_repeats": 2}))
    files = made(tmp_path / "made")
    before, times = [pixels(path) for path in files], [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    files[2].write_bytes(files[2].read_bytes()[:40])
    run_job(generating({"prompts": ["a cat", "two dogs"], "num_repeats": 2}))
    assert "2 are there, 2 to be made" in capsys.readouterr().out
    assert made(tmp_path / "made") == files
    assert [path.stat().st_mtime_ns == time for path, time in zip(files, times, strict=True)] == [1, 0, 0, 1]
    assert all(np.abs(pixels(path) - old).max() <= 1 for path, old in zip(files, before, strict=True))
    # a line more or less changes no other picture; another setting replaces none
    run_job(generating({"prompts": ["a bird", "two dogs"], "num_repeats": 2}))
    assert len(made(tmp_path / "made")) == 6
    run_job(generating({"sample_steps": 3}))
    assert len(made(tmp_path / "made")) == 7


def test_equal_prompts_are_made_once(generating: Make, tmp_path: Path, capsys: Any) -> None:
    run_job(generating({"prompts": ["a cat", "a cat"]}))
    assert len(made(tmp_path / "made")) == 1
    assert "1 of 2 pictures are the same" in capsys.readouterr().out


def test_drawn_seeds_hold_until_all_is_made(generating: Make, tmp_path: Path) -> None:
    config = generating({"seed": -1, "prompts": ["a cat", "two dogs", "a bird"], "batch_size": 1})
    process = get_job(config).processes[0].build(get_job(config))
    write = process._make_batch

    def stop_after(*arguments: Any) -> None:
        write(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    process._make_batch = stop_after
    with pytest.raises(Stopped, match="1 of 3"):
        process.run()
    (first,) = made(tmp_path / "made")
    run_job(config)
    assert len(made(tmp_path / "made")) == 3 and first in made(tmp_path / "made")
    run_job(config)
    assert len(made(tmp_path / "made")) == 6
    assert len({read_metadata(path)["seed"] for path in made(tmp_path / "made")}) == 6


def test_a_stop_is_heard_within_a_picture(generating: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extensions_built_in.flux.family import FluxFamily

    predict, calls = FluxFamily.predict, 0

    def predicted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return predict(*arguments)

    monkeypatch.setattr(FluxFamily, "predict", predicted)
    config = generating({"prompts": ["a cat", "two dogs"], "batch_size": 1, "sample_steps": 2, "guidance_scale": 1})
    with pytest.raises(Stopped, match="1 of 2 pictures are made"):
        run_job(config)
    assert calls == 3 and len(made(tmp_path / "made")) == 1
    run_job(config)
    assert len(made(tmp_path / "made")) == 2


@kills
def test_a_killed_run_leaves_whole_pictures_and_the_next_one_makes_the_rest(generating: Make, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    before = killed(generating({"num_repeats": 500, "batch_size": 1, "sample_steps": 1}), folder, most=500)
    run_job(generating({"num_repeats": len(before) + 2, "batch_size": 1, "sample_steps": 1}))
    assert len(made(folder)) == len(before) + 2
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".aitk-")]


def test_random_prompts_sizes_and_order(generating: Make, tmp_path: Path) -> None:
    sizes = [[64, 64], [96, 64]]
    generate = {
        "random_prompts": True,
        "max_random_per_prompt": 2,
        "max_images": 8,
        "size_list": sizes,
        "shuffle": True,
    }
    config = generating({**generate, "prompts": ["a cat", "two dogs", "blue"], "sample_steps": 1, "walk_seed": True})
    run_job(config)
    facts = [read_metadata(path) for path in made(tmp_path / "made")]
    assert len(facts) == 8 and {(fact["width"], fact["height"]) for fact in facts} == {(64, 64), (96, 64)}
    assert {fact["prompt"].count(",") for fact in facts} == {0, 1}
    run_job(config)
    assert len(made(tmp_path / "made")) == 8


def test_automatic_sizes_steps_and_guidance_are_those_of_the_pipeline(generating: Make, tmp_path: Path) -> None:
    from extensions_built_in.generators.orders import of_prompts
    from toolkit.context import make_context

    auto = {"width": "auto", "height": "auto", "sample_steps": "auto", "guidance_scale": "auto"}
    (process,) = get_job(generating(auto)).processes
    family = process.model.build(make_context("cpu", "fp32", 0), checkpointing=False, bypass_guidance=False)
    (order,) = of_prompts(process, family, 5)
    assert (order.prompt.steps, order.prompt.guidance) == (28, 3.5)
    # of a VAE that says nothing better than 32, the smallest size there is
    assert family.parts.source.config("vae")["sample_size"] == 32
    assert (order.prompt.width, order.prompt.height) == (64, 64)


# -- networks ---------------------------------------------------------------------------------------------------------


def last_sample(run: Any) -> np.ndarray:
    files = list_pictures(run.path / "samples")
    return pixels(next(file for file in files if file.step == files[-1].step).path)


SAMPLE = {"width": 64, "height": 64, "sample_steps": 2, "format": "png", "sample_every": 0, "seed": 11}


@pytest.mark.parametrize("kind", ["lora", "dora", "lokr"])
def test_it_makes_the_sample_of_the_training(training: Any, generating: Make, tmp_path: Path, kind: str) -> None:
    sample = {**SAMPLE, "prompts": ["a cat"], "guidance_scale": 3.0}
    network = {"type": kind, "linear": 4, "network_kwargs": {}}
    run = training(train={"lr": 0.1, "dtype": "fp32"}, network=network, sample=sample).run()
    generate = {"seed": 11, "guidance_scale": 3.0, "compare": [0, 1, 2]}
    run_job(generating(generate, loras=[{"path": str(run.final)}]))
    without, whole, double = (pixels(path) for path in made(tmp_path / "made"))
    assert np.abs(whole - last_sample(run)).max() <= 2
    assert np.abs(without - whole).max() > 12 and np.abs(double - whole).max() > 12


def test_networks_of_text_encoders_and_of_the_unet(training: Any, generating: Make, tmp_path: Path) -> None:
    from extensions_built_in.stable_diffusion.tiny import save_tiny_xl

    model = {"arch": "sdxl", "name_or_path": str(save_tiny_xl(tmp_path / "xl"))}
    sample = {**SAMPLE, "prompts": ["a cat"], "guidance_scale": 4.0, "neg": "two dogs"}
    train = {"lr": 0.1, "train_text_encoder": True, "text_encoder_lr": 0.1, "dtype": "fp32"}
    network = {"linear": 4, "network_kwargs": {}}
    run = training(model=model, network=network, train=train, sample=sample).run()
    generate = {"seed": 11, "guidance_scale": 4.0, "neg": "two dogs", "compare": [1, 0.5]}
    half = [{"path": str(run.final), "weight": 0.5}] * 2
    run_job(generating(generate, model=model, loras=half, dtype="fp32"))
    both, quarter = (pixels(path) for path in made(tmp_path / "made"))
    # twice the half is the whole
    assert np.abs(both - last_sample(run)).max() <= 2
    assert np.abs(both - quarter).max() > 3


def test_two_experts_and_a_video(training: Any, generating: Make, tmp_path: Path) -> None:
    from extensions_built_in.wan.tiny import save_tiny

    model = {"arch": "wan22_14b", "name_or_path": str(save_tiny(tmp_path / "wan", boundary=0.875))}
    sample = {**SAMPLE, "prompts": ["a cat"], "guidance_scale": 3.0, "num_frames": 5}
    train = {"lr": 0.1, "switch_boundary_every": 2, "dtype": "fp32"}
    run = training(model=model, network={"linear": 4, "network_kwargs": {}}, train=train, sample=sample).run()
    generate = {"seed": 11, "guidance_scale": 3.0, "num_frames": 5, "compare": [1, 0]}
    run_job(generating(generate, model=model, loras=[{"path": str(run.final)}], dtype="fp32"))
    with_both, without = (pixels(path) for path in made(tmp_path / "made"))
    assert len(list((tmp_path / "made").glob("*.mp4"))) == 2
    assert np.abs(with_both - last_sample(run)).max() <= 2 and np.abs(with_both - without).max() > 3
    high = str(run.final.with_name("run_high_noise.safetensors"))
    signed = {
        f"diffusion_model.transformer_{number}.{key.partition('.')[2]}": tensor
        for number, kind in enumerate(("high", "low"), 1)
        for key, tensor in load_file(run.final.with_name(f"run_{kind}_noise.safetensors")).items()
    }
    save_file(signed, tmp_path / "both.safetensors")
    base, names = open_base(str(tmp_path / "wan")), names_of("wan22_14b")
    assert compare(tmp_path / "both.safetensors", base, names) == []
    (update,), _ = plan_updates(base, [Added(tmp_path / "both.safetensors", part="transformer_2")], names)
    assert update.part == "transformer_2"
    paths = {"loras": [{"path": str(tmp_path / "both.safetensors")}], "output_folder": str(tmp_path / "signed")}
    run_job(generating({**generate, "compare": []}, model=model, dtype="fp32", **paths))
    (one,) = made(tmp_path / "signed")
    assert np.array_equal(pixels(one), with_both)
    run.final.with_name("run_low_noise.safetensors").unlink()
    run_job(generating({**generate, "compare": []}, model=model, loras=[{"path": high}], dtype="fp32"))
    assert len(made(tmp_path / "made")) == 3


def test_it_makes_the_class_picture_too(generating: Make, tmp_path: Path) -> None:
    config = generating()
    model = config["config"]["process"][0]["model"]
    own = {"type": "class_images", "device": "cpu", "model": model, "dtype": "fp32", "prompt": "a cat", "num_images": 1}
    own |= {"folder": str(tmp_path / "class"), "resolution": 64, "sample_steps": 2, "guidance_scale": 1}
    run_job({"job": "extension", "config": {"name": "class", "process": [own]}})
    (theirs,) = made(tmp_path / "class")
    run_job(generating({"seed": read_metadata(theirs)["seed"]}))
    assert np.array_equal(pixels(made(tmp_path / "made")[0]), pixels(theirs))


# -- pictures from pictures -------------------------------------------------------------------------------------------


def test_a_picture_is_changed_by_its_strength(generating: Make, tmp_path: Path, shapes_folder: Path) -> None:
    found, few = {}, tmp_path / "few"
    few.mkdir()
    for name in ("3.png", "3.txt", "4.png"):
        shutil.copy(shapes_folder / name, few)
    for strength in (0, 0.3, 1):
        out = tmp_path / f"made_{strength}"
        config = data_job(generating(), "batch_img2img", few, denoise_strength=strength, sample_steps=8)
        config["config"]["process"][0].update(output_folder=str(out), copy_inputs_to=str(tmp_path / "inputs"))
        run_job(config)
        found[strength] = pixels(out / "3.png")
    assert [path.name for path in made(tmp_path / "inputs")] == [path.name for path in made(tmp_path / "made_1")]
    assert np.array_equal(pixels(tmp_path / "inputs/3.png"), pixels(shapes_folder / "3.png"))
    text = (shapes_folder / "3.txt").read_text(encoding="utf-8")
    assert (tmp_path / "made_1/3.txt").read_text(encoding="utf-8") == text
    # of strength 1 nothing is left of the picture
    run_job(generating({"prompts": [text], "sample_steps": 8}))
    assert np.abs(pixels(made(tmp_path / "made")[0]) - found[1]).max() <= 1
    assert np.abs(found[0] - found[0.3]).mean() < np.abs(found[0] - found[1]).mean()


def test_names_of_others_are_not_taken_and_other_settings_replace_own(
    generating: Make, tmp_path: Path, noise_folder: Path
) -> None:
    run_job(data_job(generating(), "batch_img2img", noise_folder, sample_steps=2))
    before = pixels(tmp_path / "made/0.png")
    run_job(data_job(generating(), "batch_img2img", noise_folder, sample_steps=2, denoise_strength=1))
    assert np.abs(pixels(tmp_path / "made/0.png") - before).max() > 3
    Image.new("RGB", (8, 8)).save(tmp_path / "made/1.png")
    with pytest.raises(ValueError, match=r"output_folder: .*1\.png is there, and no generator made it"):
        run_job(data_job(generating(), "batch_img2img", noise_folder, sample_steps=2))


def test_references_are_read_by_models_that_read_some(generating: Make, tmp_path: Path, noise_folder: Path) -> None:
    from extensions_built_in.flux.tiny import save_tiny

    kontext = {"arch": "flux_kontext", "name_or_path": str(save_tiny(tmp_path / "k", pipeline="FluxKontextPipeline"))}
    prompts = ["a cat", "two dogs"]
    config = data_job(generating(model=kontext), "reference_generator", noise_folder, prompts=prompts, sample_steps=1)
    run_job(config)
    files = made(tmp_path / "made")
    assert len(files) == 12 and (tmp_path / "made/0_2.txt").read_text(encoding="utf-8") == "two dogs"
    first, second = pixels(tmp_path / "made/2.png"), pixels(tmp_path / "made/1.png")
    assert first.shape != second.shape
    with pytest.raises(ValueError, match=r"model\.arch: flux makes pictures from text alone"):
        run_job(data_job(generating(), "reference_generator", noise_folder))


def test_a_sample_section_without_a_training(generating: Make, tmp_path: Path) -> None:
    config = generating()
    process = config["config"]["process"][0]
    process.pop("generate")
    sample = {**SAMPLE, "walk_seed": True, "samples": [{"prompt": "a cat"}, {"prompt": "two dogs", "width": 96}]}
    process.update(type="pure_lora_generator", sample=sample)
    run_job(config)
    facts = [read_metadata(path) for path in made(tmp_path / "made")]
    assert [(fact["seed"], fact["width"]) for fact in facts] == [(11, 64), (12, 96)]


# -- what does not work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"generate": {"prompts": "no.txt"}}, r"there is no file no\.txt; a prompt .* goes into a list: \['no\.txt'\]"),
        ({"generate": {"prompt_2": "x"}}, "prompt_2: not supported: all text encoders get the same prompt"),
        ({"generate": {"compare": [0, 1]}}, "compare: compares weights of LoRAs, but there is none"),
        ({"loras": [{"path": "./no.safetensors"}]}, r"loras\.0\.path: there is no file \./no\.safetensors"),
        ({"generate": {"width": "auto"}}, "height: width and height are both `auto`"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(generating: Make, keys: dict[str, Any], message: str) -> None:
    from toolkit.config.preflight import preflight

    with pytest.raises(ValueError, match=message):
        raise ValueError("\n".join(map(str, preflight(get_job(generating(**keys))))))


def test_a_lorm_and_an_adapter_are_refused(generating: Make, noise_folder: Path) -> None:
    config = generating()
    process = config["config"]["process"][0]
    del process["generate"]
    process.update(type="pure_lora_generator", sample={"prompts": ["a cat"]}, lorm={"extract_mode": "ratio"})
    with pytest.raises(ValueError, match="lorm: not supported: a LoRM is the model with each layer cut down"):
        get_job(config)
    with pytest.raises(ValueError, match="t2i_adapter_path: not supported: there are no T2I-Adapters"):
        get_job(data_job(generating(), "reference_generator", noise_folder, t2i_adapter_path="a/b"))


def test_a_network_of_another_model_names_its_key(generating: Make, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"unet.mid.to_q.lora_A.weight": torch.ones(2, 2), "unet.mid.to_q.lora_B.weight": torch.ones(2, 2)}, file)
    with pytest.raises(ValueError, match=r"loras\.0\.path: .*the file belongs to another model"):
        run_job(generating(loras=[{"path": str(file)}]))
