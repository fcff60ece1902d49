"""The `dreambooth` section: what it makes of the data sets, how scripts spell it, and which prompts it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.config import ConfigError, load, validate
from toolkit.config.explain import to_yaml
from toolkit.config.job_config import JobConfig
from toolkit.config.preflight import preflight
from toolkit.config.rare_words import identifiers, looks_made_up

PROMPTS = {"instance_prompt": "a photo of ohwx dog", "class_prompt": "a photo of a dog"}


@pytest.fixture(autouse=True)
def no_cache_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AITK_CACHE", raising=False)


def read(tmp_path: Path, text: dict[str, Any] | None = None, **process: Any) -> JobConfig:
    base = {
        "type": "sd_trainer",
        "training_folder": str(tmp_path / "output"),
        "model": {"arch": "flux", "name_or_path": "builtin:tiny-flux"},
        "network": {"type": "lora"},
        "datasets": [{"folder_path": "pictures", "resolution": [64, 96], "cache_latents": True}],
        "train": {"steps": 10},
    }
    base |= {key: value for key, value in process.items() if value is not None}
    if text is not None:
        base["dreambooth"] = text
    return validate(load({"job": "extension", "config": {"name": "mine", "process": [base]}}))


def sets(job: JobConfig) -> list[Any]:
    return job.processes[0].datasets  # type: ignore[attr-defined]


def notices(job: JobConfig) -> str:
    return "\n".join(str(notice) for notice in job.notices)


def test_the_prompts_become_default_captions_and_the_class_a_set_of_its_own(tmp_path: Path) -> None:
    job = read(tmp_path, {**PROMPTS, "prior_weight": 0.5})
    instance, kept = sets(job)
    assert (instance.default_caption, instance.is_reg) == ("a photo of ohwx dog", False)
    assert (kept.default_caption, kept.is_reg, kept.loss_multiplier) == ("a photo of a dog", True, 0.5)
    assert (kept.resolutions, kept.cache_latents) == ((64, 96), True)
    assert kept.folder.parent == tmp_path / "output/.aitk_cache/class_images"


def test_the_class_pictures_are_made_before_training_at_the_size_of_training(tmp_path: Path) -> None:
    sample = {"sample_steps": 7, "guidance_scale": 3, "sampler": "euler", "neg": "blurry"}
    job = read(tmp_path, {**PROMPTS, "num_class_images": 9, "sample_steps": 5}, sample=sample)
    (made,) = job.processes[0].preparations()
    assert made.destination == sets(job)[1].folder
    assert (made.prompt, made.num_images, made.resolution) == ("a photo of a dog", 9, 96)
    assert (made.sample_steps, made.guidance_scale, made.sampler, made.neg) == (5, 3, "euler", "blurry")


@pytest.mark.parametrize(
    "change",
    [{"class_prompt": "a dog"}, {"sample_steps": 5}, {"guidance_scale": 2}, {"class_resolution": 128}, {"neg": "x"}],
)
def test_another_setting_is_another_folder(tmp_path: Path, change: dict[str, Any]) -> None:
    assert sets(read(tmp_path, PROMPTS | change))[1].folder != sets(read(tmp_path, PROMPTS))[1].folder


def test_number_weight_and_batch_size_are_not(tmp_path: Path) -> None:
    change = {"num_class_images": 9, "prior_weight": 0.5, "sample_batch_size": 1}
    assert sets(read(tmp_path, PROMPTS | change))[1].folder == sets(read(tmp_path, PROMPTS))[1].folder


@pytest.mark.parametrize("off", [{"prior_weight": 0}, {"class_prompt": None}, {"with_prior_preservation": False}])
def test_without_weight_or_class_there_are_no_class_pictures(tmp_path: Path, off: dict[str, Any]) -> None:
    job = read(tmp_path, PROMPTS | off)
    assert len(sets(job)) == 1 and not job.processes[0].preparations()
    assert sets(job)[0].default_caption == "a photo of ohwx dog"


@pytest.mark.parametrize("captions", ["prepend", "ignore"])
def test_what_becomes_of_captions_is_told_to_every_set_but_those_that_say_it(tmp_path: Path, captions: str) -> None:
    own = {"folder_path": "more", "captions": "use", "default_caption": "a zwx cat"}
    job = read(tmp_path, PROMPTS | {"captions": captions}, datasets=[{"folder_path": "pictures"}, own])
    assert [(each.captions, each.default_caption) for each in sets(job)] == [
        (captions, "a photo of ohwx dog"),
        ("use", "a zwx cat"),
        (captions, "a photo of a dog"),
    ]


def test_the_resolved_config_is_the_same_run(tmp_path: Path) -> None:
    job = read(tmp_path, PROMPTS | {"captions": "ignore"})
    (tmp_path / "again.yaml").write_text(to_yaml(job), encoding="utf-8")
    again = validate(load(tmp_path / "again.yaml"))
    assert sets(again) == sets(job) and len(sets(again)) == 2
    assert yaml.safe_load(to_yaml(again)) == yaml.safe_load(to_yaml(job))
    assert list(again.processes[0].preparations()) == list(job.processes[0].preparations())


def test_a_data_set_that_names_the_class_folder_is_the_class_set(tmp_path: Path) -> None:
    datasets = [{"folder_path": "pictures"}, {"folder_path": "dogs", "is_reg": True, "resolution": 32}]
    job = read(tmp_path, PROMPTS | {"class_folder": "dogs"}, datasets=datasets)
    assert [each.resolutions for each in sets(job)] == [(512,), (32,)]


def test_spellings_of_the_scripts(tmp_path: Path) -> None:
    flat = {
        "instance_data_dir": "mine",
        "instance_prompt": "a photo of ohwx dog",
        "with_prior_preservation": True,
        "class_data_dir": "dogs",
        "class_prompt": "a photo of a dog",
        "prior_loss_weight": 0.7,
        "num_class_images": 20,
    }
    for job in (
        read(tmp_path, flat, datasets=[{"resolution": 64}]),
        read(tmp_path, datasets=[{"resolution": 64}], **flat),
    ):
        section = job.processes[0].dreambooth  # type: ignore[attr-defined]
        assert (section.prior_weight, section.num_class_images, section.class_folder) == (0.7, 20, "dogs")
        assert [(str(each.folder), each.resolutions) for each in sets(job)] == [("mine", (64,)), ("dogs", (64,))]
        assert "read as dreambooth.prior_weight" in notices(job)
    (job,) = [read(tmp_path, flat)]
    assert [str(each.folder) for each in sets(job)] == ["pictures", "mine", "dogs"]


def test_the_class_folder_need_not_be_there_but_the_pictures_must(tmp_path: Path) -> None:
    problems = [str(problem) for problem in preflight(read(tmp_path, PROMPTS))]
    assert len(problems) == 1 and "there is no folder pictures" in problems[0]


def test_a_class_folder_that_cannot_be_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "pictures").mkdir()
    job = read(tmp_path, PROMPTS | {"class_folder": str(tmp_path / "file")})
    assert any("class_folder" in str(problem) and "is a file" in str(problem) for problem in preflight(job))


def test_contradictions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"class_prompt.*missing"):
        read(tmp_path, {"class_folder": "dogs"})
    with pytest.raises(ConfigError, match=r"instance_prompt.*missing"):
        read(tmp_path, {"class_prompt": "a dog", "captions": "ignore"})
    with pytest.raises(ConfigError, match=r"unload_text_encoder.*dreambooth is about captions"):
        read(tmp_path, PROMPTS, train={"unload_text_encoder": True})


@pytest.mark.parametrize(
    "instance, kept, trigger, said",
    [
        ("a photo of sks dog", "a photo of sks dog", None, "holds 'sks'"),
        ("a photo of m1k4 dog", "a photo of a m1k4", None, "holds 'm1k4'"),
        ("a photo of luna dog", "a photo of luna", "luna", "holds 'luna'"),
        ("a photo of my dog", "a photo of the dog", None, "nothing tells the concept"),
        ("a photo of [trigger] dog", "a photo of [trigger]", "luna", "stands for the concept"),
        ("a photo of [trigger] dog", "a photo of a dog", None, "no trigger_word"),
        ("a photo of luna dog", "a photo of a dog", None, ""),
        ("a photo of a dog", "a photo of a dog", "luna", ""),
        ("a photo of [trigger] dog", "a photo of a dog", "luna", ""),
        ("a 3d render of sks tv", "a 3d render of a tv", None, ""),
    ],
)
def test_prompts_that_share_their_rare_word_are_told(
    tmp_path: Path, instance: str, kept: str, trigger: str | None, said: str
) -> None:
    text = notices(read(tmp_path, {"instance_prompt": instance, "class_prompt": kept}, trigger_word=trigger))
    assert said in text and bool(text) == bool(said)


def test_the_identifier_is_what_the_class_prompt_lacks() -> None:
    assert identifiers("a photo of the Luna dog", "a photo of a dog") == ["luna"]
    assert identifiers("photo of my dog", "a photo of a dog") == []


def test_made_up_words_have_digits_or_no_vowels() -> None:
    assert all(map(looks_made_up, ["sks", "zwx", "ohwx", "m1k4", "SKS", "p3r5on"]))
    assert not any(map(looks_made_up, ["dog", "4k", "tv", "a", "1985", "sky", "t-shirt", "x"]))


@pytest.mark.parametrize("name", ["dreambooth_tiny", "dreambooth_sdxl"])
def test_examples_pass_the_check(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the folder that the user has to fill in."""
    root = Path(__file__).resolve().parents[3]
    monkeypatch.chdir(root)
    job = validate(load(root / f"config/examples/{name}.yaml"))
    assert not job.notices
    assert [problem.message.partition("/")[0] for problem in preflight(job)] == (
        ["there is no folder "] if name == "dreambooth_sdxl" else []
    )
    assert len(sets(job)) == 2
