"""What is refused where the rules of a step cannot be followed."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.config.sections.train import TrainSection
from toolkit.models.family import Facts, Trainable
from toolkit.trainer.aims import Aims
from toolkit.trainer.config import TrainerPlugin

HIGH = Trainable("transformer", "", "transformer.", "_high_noise", (0.875, 1.0))
LOW = Trainable("transformer_2", "", "transformer.", "_low_noise", (0.0, 0.875))


def test_a_step_of_the_sampler_would_lead_to_the_other_expert() -> None:
    options = TrainSection.model_validate({"timestep_type": "next_sample"})

    def aims(*trained: Trainable) -> Aims:
        return Aims(options, Facts(16, 8, 16, "wan", trainables=trained))

    with pytest.raises(ValueError, match=r"train\.timestep_type: next_sample trains where a step of the sampler leads"):
        aims(HIGH, LOW)
    with pytest.raises(ValueError, match="train the other alone"):
        aims(HIGH)
    assert aims(LOW).experts.active(0) is LOW


class Own(TrainerPlugin):
    """A trainer of somebody's own whose batches have captions alone."""

    def build(self, job: Any) -> Any:
        """Never asked for."""


class OwnWithMore(Own):
    """One whose feed was given `aims.companions`."""

    has_companions = True


@pytest.mark.parametrize(
    "keys",
    [
        {"diff_output_preservation": True, "diff_output_preservation_class": "dog"},
        {"blank_prompt_preservation": True},
        {"do_guidance_loss": True},
        {"do_cfg": True, "cfg_scale": 2},
        {"do_random_cfg": True, "max_cfg_scale": 2},
    ],
)
def test_keys_that_need_texts_which_a_trainer_does_not_have(keys: dict[str, Any]) -> None:
    model = {"arch": "flux", "name_or_path": "builtin:tiny-flux"}
    section = {"type": "own", "training_folder": "out", "model": model, "network": {"type": "lora"}, "train": keys}
    said = dict(Own.model_validate(section).contradictions())
    assert "beside the captions, which own does not have" in said["train", next(iter(keys))]
    assert not [*OwnWithMore.model_validate(section).contradictions()]
