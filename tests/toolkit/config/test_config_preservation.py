"""Preservation and guidance in a config: what they need, what has no effect, what ai-toolkit does otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.config import ConfigError, JobConfig

Read = Callable[..., JobConfig]
KIND = {"diff_output_preservation": True, "diff_output_preservation_class": "dog"}
BLANK = {"blank_prompt_preservation": True}


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {**KIND, **BLANK}, "trigger_word": "tok"}, "train.blank_prompt_preservation: cannot be combined"),
        ({"train": KIND}, "trigger_word: missing"),
        ({"train": {"diff_output_preservation": True}, "trigger_word": "tok"}, "_preservation_class: missing; say"),
        ({"train": KIND, "trigger_word": "dog"}, "_preservation_class: is the trigger word itself"),
        ({"train": {**KIND}, "trigger_word": "tok", "network": None}, "train.diff_output_preservation: needs a `netw"),
        ({"train": BLANK, "network": None}, "train.blank_prompt_preservation: needs a `network`"),
        ({"train": {"inverted_mask_prior": True}, "network": None}, "train.inverted_mask_prior: needs a `network`"),
        ({"datasets": [{"prior_reg": True}], "network": None}, "datasets.0.prior_reg: needs a `network`"),
        ({"datasets": [{"network_weight": 0.5}], "network": None}, "datasets.0.network_weight: needs a `network`"),
        ({"train": BLANK, "network": None, "embedding": {"trigger": "tok"}}, "but what its own word gives"),
        ({"train": {"do_cfg": True, "do_guidance_loss": True}}, "train.do_guidance_loss: cannot be combined with do_c"),
        ({"train": {"do_guidance_loss": True, "guidance_loss_target": [3]}}, "train.guidance_loss_target: "),
        ({"train": {"guidance_loss_schedule": "cosine"}}, "train.guidance_loss_schedule: 'cosine' is not one of"),
        ({"train": {"train_turbo": True}}, "train.train_turbo: not supported: it trains through several"),
        ({"train": {"free_u": True}}, "train.free_u: not supported: it changes how a U-Net is sampled"),
        ({"train": {"match_adapter_assist": True}}, "train.match_adapter_assist: not supported: an adapter"),
    ],
)
def test_impossible_values(read: Read, sections: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**sections)
    assert expected in str(caught.value)


def test_a_new_word_is_the_trigger_word_that_the_class_stands_for(read: Read) -> None:
    assert read(train=KIND, embedding={"trigger": "tok"}).processes[0].trigger == "tok"


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"train": {"do_cfg": True}}, "train.do_cfg: cfg_scale is 1, which is no guidance"),
        (
            {"train": {"train_text_encoder": True}, "embedding": {"trigger": "tok"}, "network": None},
            "train.train_text_encoder: has no effect: without a `network`",
        ),
        ({"train": {"do_random_cfg": True}}, "train.do_random_cfg: max_cfg_scale is 1"),
        ({"train": {"cfg_scale": 4}}, "train.cfg_scale: has no effect: do_cfg is off"),
        ({"train": {"negative_prompt": "bad"}}, "train.negative_prompt: has no effect: do_cfg is off"),
        ({"train": {"do_differential_guidance": True}}, "train.do_differential_guidance: acts by itself"),
        ({"train": {"inverted_mask_prior": True}}, "train.inverted_mask_prior: has no effect: no data set has"),
        ({"train": {"guidance_loss_target": 5}}, "train.guidance_loss_target: has no effect: do_guidance_loss is off"),
        ({"train": {"do_blank_stabilization": True}}, "train.do_blank_stabilization: acts on pictures without"),
        ({"datasets": [{"prior_reg": True}]}, "datasets.0.prior_reg: is set for all data sets"),
        ({"datasets": [{"diff_output_preservation_class": "dog"}]}, "_preservation_class: has no effect: train.diff"),
    ],
)
def test_notices(read: Read, sections: dict[str, Any], expected: str) -> None:
    (line,) = [str(notice) for notice in read(**sections).notices if expected.partition(":")[0] in str(notice)]
    assert expected in line


def test_nothing_is_said_about_what_is_in_order(read: Read) -> None:
    assert read(train=KIND, trigger_word="tok").notices == ()
    own = {"trigger_word": "tok", "diff_output_preservation_class": "dog"}
    assert read(train={"diff_output_preservation": True}, datasets=[own]).notices == ()
    assert read(train={"do_guidance_loss": True, "guidance_loss_target": [2, 4]}).notices == ()
    assert read(train={"do_random_cfg": True, "cfg_scale": 4, "negative_prompt": "bad"}).notices == ()
