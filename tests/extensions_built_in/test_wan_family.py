"""What is Wan's own: two experts, times per token, and what a first frame becomes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_subject import Subject, loaded
from PIL import Image
from wan_case import CASES

from jobs import run_job
from toolkit.models.conditions import collate

KWARGS = ("train_high_noise", "train_low_noise")
RED = Image.new("RGB", (48, 32), "red")


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Wan 2.2 A14B text to video."""
    return Subject(CASES["wan22-14b"], tmp_path_factory.mktemp("wan") / "experts")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """Wan 2.2 TI2V-5B."""
    return Subject(CASES["wan22-5b-t2v"], tmp_path_factory.mktemp("wan") / "small")


def test_each_expert_answers_at_its_own_times(experts: Subject):
    family = experts.build()
    with loaded(family), torch.no_grad():
        noisy = experts.noise(family, 3)
        cond = collate(experts.rows(family, ["a cat"] * 3))
        asked = {"transformer": 0, "transformer_2": 0}

        def count(name: str) -> None:
            family.parts[name].register_forward_pre_hook(
                lambda module, args, kwargs: asked.update({name: asked[name] + len(kwargs["hidden_states"])}),
                with_kwargs=True,
            )

        for name in asked:
            count(name)
        mixed = family.predict(noisy, torch.tensor([0.5, 0.875, 0.2], dtype=torch.float64), cond)
        assert asked == {"transformer": 1, "transformer_2": 2}
        for index, t in enumerate((0.5, 0.875, 0.2)):
            one = collate(experts.rows(family, ["a cat"]))
            alone = family.predict(noisy[index : index + 1], torch.tensor([t], dtype=torch.float64), one)
            torch.testing.assert_close(mixed[index : index + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "files"),
    [
        ({}, ["_high_noise", "_low_noise"]),
        ({"train_low_noise": False}, ["_high_noise"]),
        ({"train_high_noise": False}, ["_low_noise"]),
    ],
)
def test_model_kwargs_choose_the_experts_that_are_trained(experts: Subject, kwargs: dict[str, bool], files: list[str]):
    trainables = experts.build(model_kwargs=kwargs).facts.trainables
    assert [trainable.file for trainable in trainables] == files
    assert {"_high_noise": (0.875, 1.0), "_low_noise": (0.0, 0.875)}.items() >= {
        trainable.file: trainable.times for trainable in trainables
    }.items()


def test_no_expert_at_all_is_an_error():
    keys = {"arch": "wan22_14b", "name_or_path": "x", "model_kwargs": dict.fromkeys(KWARGS, False)}
    config = {"name": "run", "process": [{"type": "sd_trainer", "model": keys}]}
    with pytest.raises(ValueError, match="train_low_noise: nothing is trained: train_high_noise is off too"):
        run_job({"job": "extension", "config": config})


def test_image_to_video_switches_experts_at_another_time(tmp_path: Path):
    family = Subject(CASES["wan22-14b-i2v"], tmp_path / "wan").build()
    assert [trainable.times for trainable in family.facts.trainables] == [(0.9, 1.0), (0.0, 0.9)]


def test_given_frames_are_at_time_zero(small: Subject):
    family = small.build()
    with loaded(family), torch.no_grad():
        seen: list[torch.Tensor] = []
        family.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["timestep"]), with_kwargs=True
        )
        noisy, (row,) = small.noise(family, 1), small.rows(family, ["a cat"])
        frame = family.encode_condition([RED], tuple(noisy.shape[1:]))
        for extra in ({}, frame):
            family.predict(noisy, torch.tensor([0.5], dtype=torch.float64), collate([{**row, **extra}]))
    plain, held = (times.view(noisy.shape[2], -1) for times in seen)
    assert (plain == 500).all()
    assert (held[0] == 0).all() and (held[1:] == 500).all()


def test_a_single_frame_is_not_given_to_itself(small: Subject):
    family = small.build()
    with loaded(family), torch.no_grad():
        assert family.encode_condition([RED], (4, 1, 6, 4)) == {}
        assert family.encode_condition([], (4, 3, 6, 4)) == {}


def test_the_condition_marks_the_first_frame(tmp_path: Path):
    subject = Subject(CASES["wan21-i2v"], tmp_path / "wan")
    family = subject.build()
    assert family.facts.references == "first_frame" and family.facts.needs_references
    with family.parts.using(*family.needs["encode_condition"]), torch.no_grad():
        row = family.encode_condition([RED], (4, 3, 12, 8))
        first = family.encode_image(torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 48, 32))
    assert (row["condition"][:4, 0] == 1).all() and (row["condition"][:4, 1:] == 0).all()
    torch.testing.assert_close(row["condition"][4:, :1], first[0], rtol=1e-4, atol=1e-5)


def test_texts_are_cleaned_as_the_pipeline_cleans_them(small: Subject):
    family = small.build()
    with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
        plain, dirty = family.encode_prompt(["two dogs & a cat", "  two  dogs &amp;\n a cat "])
    torch.testing.assert_close(plain["text"], dirty["text"])
