"""The texts of sliders, the pairs of their pictures, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from extensions_built_in.sliders.config import ReferenceSlider, TextSlider
from extensions_built_in.sliders.pairs import folders_of, split_pairs
from extensions_built_in.sliders.scenes import Scene, scenes_of
from extensions_built_in.sliders.sections import PairFolders, SliderTarget
from jobs import get_job
from toolkit.config.errors import ConfigError
from toolkit.config.preflight import preflight

TARGET = {"target_class": "person", "positive": "old person", "negative": "young person"}
PLAIN = {"name_or_path": "builtin:tiny-flux", "arch": "flux"}


def config_of(kind: str, job: str = "extension", **keys: Any) -> dict[str, Any]:
    process = {"type": kind, "model": PLAIN, "network": {"type": "lora", "linear": 4}, **keys}
    return {"job": job, "config": {"name": "x", "training_folder": "out", "process": [process]}}


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        get_job(config)
    return str(error.value)


def test_a_line_goes_with_all_three_texts() -> None:
    target = SliderTarget(target_class="a {}", positive="an old {}", negative="young")
    assert scenes_of(target, ["cat", "dog in a hat"], 0) == [
        Scene("a cat", "an old cat", "young cat"),
        Scene("a dog in a hat", "an old dog in a hat", "young dog in a hat"),
    ]
    assert scenes_of(target.model_copy(update={"target_class": "person"}), [], 0)[0].neutral == "person"
    # an empty end is the class itself
    one_sided = SliderTarget(target_class="person", positive="old person")
    assert scenes_of(one_sided, [], 0) == [Scene("person", "old person", "person")]


def test_shuffled_parts_come_in_at_most_8_orders() -> None:
    few = SliderTarget(positive="a, b, c", negative="d, e", shuffle=True)
    scenes = scenes_of(few, [], 0)
    assert len(scenes) == 6 and {scene.negative for scene in scenes} == {"d, e", "e, d"}
    assert len({scene.positive for scene in scenes}) == 6 and scenes[0] == Scene("", "a, b, c", "d, e")
    many = SliderTarget(positive=", ".join("abcdefgh"), negative="z", shuffle=True)
    found = [scene.positive for scene in scenes_of(many, [], 0)]
    assert len(set(found)) == 8 and found[0] == "a, b, c, d, e, f, g, h"
    assert all(sorted(text.split(", ")) == list("abcdefgh") for text in found)
    assert found == [scene.positive for scene in scenes_of(many, [], 0)]


def test_a_slider_config_of_ai_toolkit_runs_as_it_is() -> None:
    """Keys and places as its example has them: the folder beside `process`, 40 denoising steps, unused keys."""
    target = {**TARGET, "target_class": "", "weight": 1.0, "shuffle": True}
    slider = {"resolutions": [[512, 512]], "batch_full_slide": True, "targets": [target], "low_ram": True}
    train = {"noise_scheduler": "ddpm", "steps": 500, "lr": 2e-4, "max_denoising_steps": 40, "min_snr_gamma": 5.0}
    model = {"name_or_path": "runwayml/stable-diffusion-v1-5", "is_v2": False, "is_v_pred": False, "is_xl": False}
    config = config_of("slider", "train", slider=slider, train={**train, "dtype": "bf16"}, model=model)
    config["config"]["process"][0]["network"] = {"type": "lierla", "linear": 8, "linear_alpha": 4}
    process = get_job(config).processes[0]
    assert isinstance(process, TextSlider)
    assert process.slider.latent_steps == 40 and process.train.max_denoising_steps == 999
    assert process.training_folder == "out"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"network": None}, "network: missing: a slider is trained as a network beside the model"),
        ({"train": {"diff_output_preservation": True}}, "train.diff_output_preservation: a slider has targets"),
        ({"train": {"do_prior_divergence": True}}, "train.do_prior_divergence: a slider has targets"),
        ({"train": {"target_noise_multiplier": 2}}, "train.target_noise_multiplier: a slider has targets"),
        ({"train": {"timestep_type": "next_sample"}}, "train.timestep_type: next_sample follows the network at one"),
        ({"train": {"force_consistent_noise": True}}, "train.force_consistent_noise: keeps the noise of a picture"),
        ({"slider": {"targets": []}}, "slider.targets: "),
        ({"slider": {"targets": [{"target_class": "x"}]}}, "positive and negative are both empty"),
        ({"slider": {"targets": [{"positive": "x", "negative": "x"}]}}, "is the same as positive"),
        ({"slider": {"targets": [{"positive": "{} x"}]}}, "stands for a line of prompt_file"),
        ({"slider": {"targets": [TARGET], "use_adapter": "depth"}}, "use_adapter: not supported: a slider here is"),
        ({"slider": {"targets": [TARGET], "guidance": 3}}, "slider.guidance: unknown key"),
        ({"datasets": []}, "datasets: unknown key"),
    ],
)
def test_what_a_slider_cannot_do_is_refused(keys: dict[str, Any], said: str) -> None:
    assert said in refused(config_of("slider", **{"slider": {"targets": [TARGET]}, **keys}))


def test_a_missing_file_of_prompts_is_said_before_the_run(tmp_path: Path) -> None:
    slider = {"targets": [TARGET], "prompt_file": str(tmp_path / "none.txt")}
    assert "there is no file" in str(preflight(get_job(config_of("slider", slider=slider)))[0])


def draw_pair(folder: Path, name: str, color: str, size: tuple[int, int] = (32, 32)) -> None:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", size, color).save(folder / name)


def test_pictures_without_their_other_end_are_named_before_the_run(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_pair(tmp_path / "pos", name, "red")
    for name in ("b.jpg", "c.png"):
        draw_pair(tmp_path / "neg", name, "blue")
    pair = {"pos_folder": str(tmp_path / "pos"), "neg_folder": str(tmp_path / "neg")}
    job = get_job(config_of("image_reference_slider_trainer", slider={"datasets": [pair]}))
    problems = [str(problem) for problem in preflight(job)]
    said = "of its pictures have none of the same name"
    assert any(f"pos_folder: 1 {said}" in line and line.endswith(": a") for line in problems)
    assert any(f"neg_folder: 1 {said}" in line and line.endswith(": c") for line in problems)
    both = {**pair, "pair_folder": "x"}
    said = refused(config_of("image_reference_slider_trainer", slider={"datasets": [both]}))
    assert "pair_folder: cannot be combined" in said


def test_pairs_become_data_sets_once(tmp_path: Path) -> None:
    pair = {"pos_folder": "p", "neg_folder": "n", "pos_weight": -2, "neg_weight": 0.5, "target_class": "x", "size": 64}
    job = get_job(config_of("image_reference_slider_trainer", slider={"datasets": [pair]}))
    process = job.processes[0]
    assert isinstance(process, ReferenceSlider)
    (dataset,) = process.datasets
    assert (dataset.folder_path, dataset.unconditional_path, dataset.network_weight) == ("p", "n", 2.0)
    assert (dataset.default_caption, dataset.resolution) == ("x", 64) and process.pairs[0].strengths == (2.0, 0.5)
    # a resolved config has both, and means the same
    assert ReferenceSlider.model_validate(process.model_dump()).completed() == process
    other = {**pair, "neg_weight": 1}
    said = refused(config_of("image_reference_slider_trainer", slider={"datasets": [pair, other]}))
    assert "must have the same neg_weight" in said


def test_a_picture_of_both_ends_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AITK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pairs"
    folder.mkdir()
    image = Image.new("RGB", (65, 32), "blue")
    image.paste("red", (33, 0, 65, 32))
    image.save(folder / "a.png")
    (folder / "a.txt").write_text("a face", encoding="utf-8")
    pair = PairFolders(pair_folder=str(folder))
    split_pairs([pair], str(tmp_path))
    positive, negative = folders_of(pair, str(tmp_path))
    with Image.open(positive / "a.png") as right, Image.open(negative / "a.png") as left:
        assert right.getcolors() == [(32 * 32, (255, 0, 0))] and left.getcolors() == [(32 * 32, (0, 0, 255))]
    assert (positive / "a.txt").read_text(encoding="utf-8") == "a face"
    made = (positive / "a.png").stat().st_mtime_ns
    split_pairs([pair], str(tmp_path))
    assert (positive / "a.png").stat().st_mtime_ns == made
    (folder / "a.png").rename(folder / "b.png")
    split_pairs([pair], str(tmp_path))
    assert [path.name for path in positive.iterdir()] == ["b.png"]
