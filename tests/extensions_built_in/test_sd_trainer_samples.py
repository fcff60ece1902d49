"""Pictures while training: when, which, what is written into them, and that diffusers makes the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs import Stopped
from toolkit.sampling.picture_files import list_pictures, read_metadata

SMALL = {"width": 64, "height": 64, "sample_steps": 1, "format": "png", "sample_every": 2, "prompts": ["a cat"]}


def steps_of(training: Any) -> list[int]:
    return [picture.step for picture in list_pictures(training.path / "samples")]


@pytest.mark.parametrize(
    ("train", "sample", "steps"),
    [
        ({}, {}, [0, 2, 4]),
        ({}, {"sample_every": 3}, [0, 3, 4]),
        ({}, {"sample_every": 0}, [0, 4]),
        ({}, {"sample_start_step": 3}, [0, 4]),
        ({"skip_first_sample": True}, {}, [2, 4]),
        ({"disable_sampling": True}, {}, []),
    ],
)
def test_pictures_are_made_when_asked_for(
    training: Any, train: dict[str, Any], sample: dict[str, Any], steps: list[int]
) -> None:
    run = training(train=train, sample={**SMALL, **sample}).run()
    assert steps_of(run) == steps
    assert (run.path / "samples" / "contact_sheet.png").exists() == bool(steps)


def test_a_resumed_run_makes_first_pictures_only_if_forced(training: Any, signal_at: Any) -> None:
    for name, train, steps in (("plain", {}, [0, 4]), ("forced", {"force_first_sample": True}, [0, 3, 4])):
        run = training(name, train=train, sample={**SMALL, "sample_every": 0})
        with signal_at("step 3/4"), pytest.raises(Stopped):
            run.run()
        run.run()
        assert steps_of(run) == steps


def test_sampling_does_not_change_the_training(training: Any, identical: Any) -> None:
    plain = training("plain", network={"dropout": 0.5}).run()
    sampled = training("sampled", network={"dropout": 0.5}, sample=SMALL).run()
    assert identical(sampled.state(), plain.state())


def test_each_picture_has_its_own_settings_and_says_so(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    items = [
        {"prompt": "a [trigger] cat", "width": 64, "height": 72, "seed": 7},
        {"prompt": "two dogs --w 80 --h 64 --d 9 --s 2"},
        {"prompt": "a cat", "network_multiplier": 0.0},
    ]
    run = training(trigger_word="red", sample={**SMALL, "seed": 3, "samples": items, "sample_every": 0}).run()
    assert f"3 samples at step 4: {run.path / 'samples'}" in capsys.readouterr().out
    files = list_pictures(run.path / "samples")
    first, last = files[:3], files[3:]
    sizes = [Image.open(file.path).size for file in last]
    assert sizes == [(64, 72), (80, 64), (64, 64)]
    notes = [read_metadata(file.path) for file in last]
    assert [(note["prompt"], note["seed"], note["step"], note["steps"]) for note in notes] == [
        ("a red cat", 7, 4, 1),
        ("two dogs", 9, 4, 2),
        ("a cat", 3, 4, 1),
    ]
    same = [np.array_equal(Image.open(a.path), Image.open(b.path)) for a, b in zip(first, last, strict=True)]
    assert same == [False, False, True]  # the last one is made without the network


def test_the_contact_sheet_grows_with_every_round(training: Any) -> None:
    run = training(sample={**SMALL, "prompts": ["a cat", "two dogs"]}, train={"steps": 2})
    run.run()
    sheet = run.path / "samples" / "contact_sheet.png"
    two_rounds = Image.open(sheet).size
    run.but(train={"steps": 6}).run()
    four_rounds = Image.open(sheet).size
    assert max(four_rounds) > max(two_rounds)


@pytest.mark.parametrize("guidance_embeds", [True, False])
def test_diffusers_makes_the_same_picture_with_the_saved_file(
    training: Any, tiny_flux: Path, tmp_path: Path, guidance_embeds: bool
) -> None:
    import torch
    from diffusers import FluxPipeline

    from extensions_built_in.flux.tiny import save_tiny

    folder = tiny_flux if guidance_embeds else save_tiny(tmp_path / "schnell", guidance_embeds=False)
    run = training(
        model={"name_or_path": str(folder)},
        network={"linear": 4, "linear_alpha": 8, "network_kwargs": {}},
        train={"lr": 0.1, "ema_config": {"use_ema": True, "ema_decay": 0.5}},
        sample={**SMALL, "width": 64, "height": 80, "sample_steps": 3, "guidance_scale": 3.5, "seed": 11},
    ).run()
    ours = np.asarray(Image.open(list_pictures(run.path / "samples")[-1].path)).astype(int)

    pipe = FluxPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)

    def theirs() -> Any:
        picture = pipe(
            "a cat",
            width=64,
            height=80,
            num_inference_steps=3,
            guidance_scale=3.5,
            max_sequence_length=pipe.tokenizer_2.model_max_length,
            generator=torch.Generator().manual_seed(11),
        ).images[0]
        return np.asarray(picture).astype(int)

    base = theirs()
    pipe.load_lora_weights(str(run.path), weight_name=run.final.name)
    assert np.abs(theirs() - ours).max() <= 2
    assert np.abs(base - ours).max() > 10
