"""The trainer on other kinds of models: trained text encoders, two experts, videos, reference pictures."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from jobs import Stopped
from toolkit.sampling.picture_files import list_pictures, read_metadata

SMALL = {"width": 64, "height": 64, "sample_steps": 2, "format": "png", "sample_every": 0, "guidance_scale": 3.0}


def pictures(training: Any, step: int) -> list[Any]:
    files = [file for file in list_pictures(training.path / "samples") if file.step == step]
    return [np.asarray(Image.open(file.path).convert("RGB")).astype(int) for file in files]


# -- text encoders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from extensions_built_in.stable_diffusion.tiny import save_tiny_xl

    return save_tiny_xl(tmp_path_factory.mktemp("tiny") / "xl")


@pytest.fixture
def xl(training: Callable[..., Any], tiny_xl: Path) -> Callable[..., Any]:
    """A LoRA on SDXL and both of its text encoders."""
    return lambda name="run", **sections: (
        training(
            name,
            model={"arch": "sdxl", "name_or_path": str(tiny_xl)},
            network={"network_kwargs": {}},
            save={"key_format": "diffusers"},
        )
        .but(train={"train_text_encoder": True, "text_encoder_lr": 5e-3})
        .but(**sections)
    )


def test_text_encoders_are_trained_with_a_rate_of_their_own(xl: Any, capsys: Any) -> None:
    run = xl(train={"steps": 3, "lr_scheduler": "linear"}, save={"save_every": 1}).run()
    weights, before = run.weights(), run.weights(1)
    assert {name.split(".")[0] for name in weights} == {"unet", "text_encoder", "text_encoder_2"}
    for part in ("unet.", "text_encoder.", "text_encoder_2."):
        ups = [name for name in weights if name.startswith(part) and name.endswith("lora_B.weight")]
        assert all(weights[name].abs().max() > 0 for name in ups)
        assert any(not np.array_equal(weights[name], before[name]) for name in ups)
    for key, rate in (("learning_rate", 1e-2), ("learning_rate/text_encoder", 5e-3)):
        assert [row[key] for row in run.metrics()] == pytest.approx([rate, rate * 2 / 3, rate / 3])
    assert "text_encoder_2: LoRA" in capsys.readouterr().out


def test_a_run_with_text_encoders_goes_on_exactly(xl: Any, signal_at: Any, identical: Any) -> None:
    options = {"train": {"steps": 3, "ema_config": {"use_ema": True}}}
    whole, parts = xl("whole", **options).run(), xl("parts", **options)
    with signal_at("step 1/3"), pytest.raises(Stopped):
        parts.run()
    parts.run()
    assert identical(parts.state(), whole.state()) and identical(parts.weights(), whole.weights())


def test_only_the_text_encoders_can_be_trained(xl: Any) -> None:
    run = xl(train={"train_unet": False, "gradient_checkpointing": True, "steps": 2}).run()
    assert {name.split(".")[0] for name in run.weights()} == {"text_encoder", "text_encoder_2"}
    assert [row["learning_rate"] for row in run.metrics()] == [5e-3] * 2


def test_diffusers_makes_the_same_picture_with_the_saved_text_encoders(xl: Any, tiny_xl: Path) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline

    sample = {**SMALL, "height": 80, "prompts": ["a cat"], "neg": "two dogs", "seed": 11, "guidance_scale": 4.0}
    run = xl(train={"lr": 0.1, "text_encoder_lr": 0.1}, network={"linear": 4}, sample=sample).run()
    first, ours = pictures(run, 0)[0], pictures(run, 4)[0]
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_xl)
    pipe.set_progress_bar_config(disable=True)

    def theirs() -> Any:
        picture = pipe(
            "a cat",
            negative_prompt="two dogs",
            width=64,
            height=80,
            num_inference_steps=2,
            guidance_scale=4.0,
            generator=torch.Generator().manual_seed(11),
        ).images[0]
        return np.asarray(picture).astype(int)

    assert np.abs(theirs() - first).max() <= 2
    pipe.load_lora_weights(str(run.path), weight_name=run.final.name)
    assert np.abs(theirs() - ours).max() <= 2
    assert np.abs(first - ours).max() > 10


def test_text_encoders_that_cannot_be_trained_are_named(training: Any, capsys: Any) -> None:
    assert training(train={"train_text_encoder": True}).from_command_line() == 2
    assert "train.train_text_encoder: this model's text encoders cannot be trained" in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["heun", "euler_a"])
def test_a_sampler_can_be_chosen(xl: Any, sampler: str) -> None:
    """Of second order, and with noise of its own: that of the prompt's seed."""
    options = {"train": {"steps": 1, "train_text_encoder": False, "text_encoder_lr": None}}
    sample = {**SMALL, "prompts": ["a cat --d 5", "a cat --d 5"], "sampler": sampler}
    one, other = pictures(xl(sample=sample, **options).run(), 0)
    own = pictures(xl("own", sample={**sample, "sampler": None, "prompts": ["a cat --d 5"]}, **options).run(), 0)[0]
    assert np.array_equal(one, other) and np.abs(own - one).max() > 3


# -- experts and videos -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from extensions_built_in.wan.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "wan", boundary=0.875)


@pytest.fixture
def wan(training: Callable[..., Any], tiny_wan: Path) -> Callable[..., Any]:
    """A LoRA on both experts of Wan 2.2, which take turns of two steps."""
    return lambda name="run", **sections: training(
        name,
        model={"arch": "wan22_14b", "name_or_path": str(tiny_wan)},
        network={"network_kwargs": {}},
        save={"key_format": "diffusers"},
        train={"switch_boundary_every": 2},
    ).but(**sections)


def expert(training: Any, which: str, step: int | None = None) -> dict[str, Any]:
    from safetensors.torch import load_file

    number = "" if step is None else f"_{step:09d}"
    return load_file(training.path / f"{training.name}{number}_{which}_noise.safetensors")


def test_experts_take_turns_and_have_a_file_each(wan: Any, identical: Any) -> None:
    run = wan(save={"save_every": 1, "max_step_saves_to_keep": 5}, train={"steps": 5}).run()
    names = {path.name for path in run.path.glob("*.safetensors")}
    ends = [f"_{which}_noise.safetensors" for which in ("high", "low")]
    assert names == {f"run{number}{end}" for end in ends for number in ("", *(f"_{n:09d}" for n in range(1, 5)))}
    steps = [1, 2, 3, 4, None]
    for which, moved in (("high", [True, False, False, True]), ("low", [False, True, True, False])):
        files = [expert(run, which, step) for step in steps]
        assert [not identical(a, b) for a, b in itertools.pairwise(files)] == moved, which
    listed = json.loads((run.path / "checkpoints.json").read_text())["checkpoints"]
    assert [len(entry["files"]) for entry in listed] == [2] * 5


def test_helpers_and_merged_models_have_a_file_for_each_expert(wan: Any, tiny_wan: Path) -> None:
    from diffusers import WanTransformer3DModel

    helper = wan("helper", train={"steps": 3, "lr": 0.1}).run()
    path = str(helper.path / "helper_high_noise.safetensors")
    run = wan(model={"lora_path": path}, train={"steps": 1, "lr": 0.1, "merge_network_on_save": True}).run()
    changes = set()
    for part, which in (("transformer", "high"), ("transformer_2", "low")):
        merged = WanTransformer3DModel.from_pretrained(run.path / "run_merged" / part).state_dict()
        for name, weight in WanTransformer3DModel.from_pretrained(tiny_wan / part).state_dict().items():
            stem = f"transformer.{name.removesuffix('.weight')}"
            for number, file in enumerate((expert(helper, which), expert(run, which))):
                if f"{stem}.lora_A.weight" in file:
                    change = file[f"{stem}.lora_B.weight"] @ file[f"{stem}.lora_A.weight"]
                    weight = weight + change
                    changes |= {(number, which)} if change.abs().max() > 0 else set()
            torch.testing.assert_close(merged[name], weight)
    assert changes == {(0, "high"), (0, "low"), (1, "high")}

    (helper.path / "helper_low_noise.safetensors").unlink()
    model = {"assistant_lora_path": path, "model_kwargs": {"train_high_noise": False}}
    other = wan("other", model=model, train={"steps": 1, "merge_network_on_save": True}).run()
    assert (other.path / "other_merged" / "transformer_2").is_dir()


def test_a_run_with_experts_goes_on_exactly_and_from_its_files(wan: Any, signal_at: Any, identical: Any) -> None:
    options = {"train": {"steps": 4}, "save": {"max_step_saves_to_keep": 1}}
    whole, parts = wan("whole", **options).run(), wan("parts", **options)
    with signal_at("step 3/4"), pytest.raises(Stopped):
        parts.run()
    parts.run()
    assert identical(parts.state(), whole.state())
    for which in ("high", "low"):
        assert identical(expert(parts, which), expert(whole, which))

    (parts.path / "optimizer.pt").unlink()
    high, low = expert(parts, "high"), expert(parts, "low")
    parts.but(train={"steps": 5, "lr": 1e-12}).run()
    for saved, which in ((high, "high"), (low, "low")):
        again = expert(parts, which)
        assert saved.keys() == again.keys() and all((again[k] - saved[k]).abs().max() < 1e-6 for k in saved)


def test_one_expert_alone(wan: Any) -> None:
    run = wan(model={"model_kwargs": {"train_high_noise": False}}, train={"steps": 2}).run()
    assert [path.name for path in run.path.glob("*.safetensors")] == ["run_low_noise.safetensors"]
    assert all(tensor.abs().max() > 0 for tensor in expert(run, "low").values())


def test_an_expert_without_times_is_found_before_anything_is_loaded(wan: Any, capsys: Any) -> None:
    assert wan(train={"min_denoising_steps": 500, "timestep_type": "linear"}).from_command_line() == 1
    assert "leave nothing to train at the times from 0.875 to 1" in capsys.readouterr().err


def test_videos_are_sampled_as_webp_and_mp4(wan: Any) -> None:
    sample = {**SMALL, "num_frames": 9, "fps": 8, "prompts": ["a cat", "two dogs --frames 1"]}
    run = wan(train={"steps": 1, "lr": 0.1}, network={"linear": 4}, sample=sample).run()
    folder = run.path / "samples"
    video, picture = (file.path for file in list_pictures(folder) if file.step == 1)
    assert (video.suffix, picture.suffix) == (".webp", ".png")
    with Image.open(video) as image:
        assert (image.n_frames, image.size) == (9, (64, 64))  # type: ignore[attr-defined]
    assert read_metadata(video)["num_frames"] == 9 and read_metadata(picture)["num_frames"] == 1
    with av.open(str(video.with_suffix(".mp4"))) as file:
        frames = [frame.to_ndarray() for frame in file.decode(video=0)]
    assert len(frames) == 9 and not np.array_equal(frames[0], frames[-1])
    assert len(list(folder.glob("*.mp4"))) == 2  # before and after
    assert (folder / "contact_sheet.png").exists()


def test_a_video_model_measures_held_out_pictures(wan: Any, noise_folder: Path) -> None:
    items = [{"image_path": str(noise_folder / "0.png"), "prompt": "a cat"}]
    config = {"validation_items": items, "resolution": 32, "validate_every_n_steps": 1, "validation_sigmas": [0.9, 0.5]}
    run = wan(train={"steps": 2, "validation_config": config}).run()
    assert [row["validation/loss"] > 0 for row in run.metrics() if "validation/loss" in row] == [True, True]


# -- reference pictures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_kontext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from extensions_built_in.flux.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "kontext", pipeline="FluxKontextPipeline")


@pytest.fixture(scope="module")
def tiny_edit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from extensions_built_in.qwen_image.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny") / "edit", edit=True)


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory, noise_folder: Path) -> Path:
    """A picture for each of the data set, named like it and of another color."""
    folder = tmp_path_factory.mktemp("controls")
    for index, path in enumerate(sorted(noise_folder.glob("*.png"))):
        Image.new("RGB", (48, 32), (40 * index, 250 - 50 * index, 255)).save(folder / path.name)
    return folder


@pytest.mark.parametrize("arch", ["flux_kontext", "qwen_image_edit"])
def test_samples_see_their_reference(
    training: Any, request: Any, controls: Path, noise_folder: Path, arch: str
) -> None:
    model = request.getfixturevalue("tiny_kontext" if arch == "flux_kontext" else "tiny_edit")
    dataset = {"folder_path": str(noise_folder), "resolution": 32, "control_path": str(controls), "cache_latents": True}
    items = [{"prompt": "a cat", "ctrl_img": str(controls / f"{index}.png"), "seed": 3} for index in (0, 5, 0)]
    run = training(
        model={"arch": arch, "name_or_path": str(model), "model_kwargs": {"match_target_res": True}},
        network={"network_kwargs": {}},
        datasets=[dataset],
        sample={**SMALL, "samples": items, "walk_seed": False},
        train={"steps": 2},
    ).run()
    for step in (0, 2):
        one, other, same = pictures(run, step)
        assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert read_metadata(list_pictures(run.path / "samples")[1].path)["images"] == [str(controls / "5.png")]


def test_a_model_that_needs_a_reference_says_so_before_anything_is_loaded(
    training: Any, tiny_edit: Path, controls: Path, noise_folder: Path, capsys: Any
) -> None:
    dataset = {"folder_path": str(noise_folder), "resolution": 32, "control_path": str(controls)}
    model = {"arch": "qwen_image_edit", "name_or_path": str(tiny_edit)}
    run = training(model=model, datasets=[dataset], sample={**SMALL, "prompts": ["a cat"]})
    assert run.from_command_line() == 1
    assert "sample prompt 1: this model makes pictures from a picture; add ctrl_img" in capsys.readouterr().err
    items = [{"image_path": str(noise_folder / "0.png")}]
    assert run.but(sample={"prompts": []}, train={"validation_config": {"validation_items": items}}).from_command_line()
    assert "train.validation_config: this model makes pictures from reference" in capsys.readouterr().err
