"""DreamBooth with the real tiny model: pictures of the class are made, both kinds take turns, the weight acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import Stopped

PROMPTS = {"instance_prompt": "a photo of ohwx cat", "class_prompt": "a photo of a cat"}
MAKING = {"num_class_images": 3, "class_resolution": 64, "sample_steps": 1, "guidance_scale": 1}


@pytest.fixture
def dream(training: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a training with a `dreambooth` section; without pictures of its own and short."""
    monkeypatch.delenv("AITK_CACHE", raising=False)

    def make(name: str = "run", steps: int = 4, **section: Any) -> Any:
        train = {"steps": steps, "disable_sampling": True}
        return training(name, dreambooth={**PROMPTS, **MAKING, **section}, train=train)

    return make


def losses(run: Any) -> list[float]:
    return [row["loss/loss"] for row in run.metrics()]


def class_pictures(run: Any) -> list[Path]:
    return sorted(Path(run.process["training_folder"]).rglob(".aitk_cache/class_images/*/class_*.png"))


def test_class_pictures_are_made_once_and_trained_in_turn_with_the_others(dream: Any) -> None:
    """With next to no weight, the batches of class pictures show in the loss: every second one."""
    run = dream("light", steps=6, prior_weight=1e-6).run()
    made = class_pictures(run)
    assert len(made) == 3
    found = losses(run)
    assert all(loss > 1e-3 for loss in found[0::2]) and all(0 < loss < 1e-4 for loss in found[1::2])
    stamps = [path.stat().st_mtime_ns for path in made]
    dream("again", prior_weight=1e-6).run()
    assert [path.stat().st_mtime_ns for path in class_pictures(run)] == stamps


def test_the_weight_scales_the_loss_of_class_pictures_alone(dream: Any) -> None:
    """The second step is the first of the class; before it, the runs are the same."""
    full, half = losses(dream("full", 2).run()), losses(dream("half", 2, prior_weight=0.5).run())
    assert half[0] == full[0]
    assert half[1] == pytest.approx(full[1] / 2, rel=1e-6)


def test_without_weight_it_is_a_training_without_class_pictures(dream: Any, identical: Any) -> None:
    off, none = dream("off", prior_weight=0).run(), dream("none", class_prompt=None).run()
    assert not class_pictures(off)
    assert identical(off.weights(), none.weights())
    assert not identical(off.weights(), dream("on").run().weights())


def test_the_instance_prompt_is_trained_where_there_is_no_caption(dream: Any, training: Any, identical: Any) -> None:
    """One of the six pictures has none, so another prompt changes the training."""
    one = dream("one", class_prompt=None).run()
    other = dream("other", class_prompt=None, instance_prompt="a blue bird").run()
    assert not identical(one.weights(), other.weights())


def test_captions_can_be_ignored_or_follow_the_prompt(dream: Any, identical: Any) -> None:
    used, ignored, prepended = (
        dream(mode, class_prompt=None, captions=mode).run().weights() for mode in ("use", "ignore", "prepend")
    )
    assert not identical(used, ignored) and not identical(used, prepended) and not identical(ignored, prepended)


def test_a_run_goes_on_exactly_between_the_two_kinds(dream: Any, signal_at: Any, identical: Any) -> None:
    whole = dream("whole", steps=7).run()
    parts = dream("parts", steps=7)
    with signal_at("step 2/7"), pytest.raises(Stopped):
        parts.run()
    parts.run()
    assert identical(parts.state(), whole.state()) and losses(parts) == losses(whole)


def test_the_resolved_config_runs_again_the_same(dream: Any, identical: Any) -> None:
    from jobs import run_job

    run = dream("first").run()
    config = yaml.safe_load((run.path / "config.yaml").read_text(encoding="utf-8"))
    assert [each["is_reg"] for each in config["config"]["process"][0]["datasets"]] == [False, True]
    weights = run.weights()
    run.path.rename(run.path.with_name("kept"))
    run_job(config)
    assert identical(run.weights(), weights)


def test_the_plan_says_what_comes_first(dream: Any) -> None:
    from jobs import get_job

    lines = "\n".join(get_job(dream().config).plan())
    assert "before it, class_images:\n    pictures of 'a photo of a cat': 3 wanted, 3 to be made" in lines
    assert "class prompt: 'a photo of a cat', weight 1, a batch of them after every other batch" in lines
