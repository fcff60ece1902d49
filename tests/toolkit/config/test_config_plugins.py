"""Sections, and how a config picks a plugin."""

from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import ValidationError

from extensions_built_in.sd_trainer.config import SdTrainer
from toolkit.config.plugins import JOB_KINDS, ModelPlugin, NetworkPlugin, OptimizerPlugin, ProcessPlugin, chosen
from toolkit.config.section import Section, idle, planned, works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.schedule import OWN, check_params
from toolkit.config.sections.train import TrainSection
from toolkit.config.walk import first_unknown, takes_any_key


class Small(Section):
    size: int = works(3, "A size.", ge=1)
    name: str | None = works(None, "A name.")
    old: int = idle(5, "not used", ui=6)
    later: float = planned(1.0, "Later.", ui=2.0)
    switch: bool = planned(False, "A switch.")
    detail: str = planned("a", "A detail.", needs="switch")


def errors_of(section: type[Section], **keys: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(keys)
    return {".".join(map(str, item["loc"])): item["type"] for item in caught.value.errors()}


def test_a_section_is_frozen_and_null_counts_as_missing() -> None:
    section = Small.model_validate({"size": None, "name": None, "later": None})
    assert (section.size, section.later) == (3, 1.0)
    with pytest.raises(ValidationError, match="frozen"):
        section.size = 4  # type: ignore[misc]


def test_planned_keys_are_refused_with_all_other_errors() -> None:
    found = errors_of(Small, size=0, later=3.0, switch=True, detail="b", other=1)
    assert found == {
        "size": "greater_than_equal",
        "later": "planned",
        "switch": "planned",
        "detail": "planned",
        "other": "extra_forbidden",
    }


@pytest.mark.parametrize("keys", [{"later": 1}, {"later": 2.0}, {"switch": 0}, {"old": 9}, {"detail": "b"}])
def test_values_without_effect_are_accepted(keys: dict[str, Any]) -> None:
    Small.model_validate(keys)


def test_a_planned_multiplier_cannot_be_switched_off_unnoticed() -> None:
    assert errors_of(Small, later=0.0) == {"later": "planned"}
    assert errors_of(TrainSection, img_multiplier=0) == {"img_multiplier": "planned"}


def test_the_class_is_picked_by_name_and_keeps_its_own_errors() -> None:
    class Holder(Section):
        model: Annotated[ModelPlugin, chosen("models", by="arch")]
        network: Annotated[NetworkPlugin | None, chosen("networks", by="type")] = None

    holder = Holder.model_validate({"model": {"arch": "flux", "name_or_path": "a/b"}, "network": {"linear": 8}})
    assert type(holder.model).__name__ == "Flux"
    assert type(holder.network).__name__ == "Lora"
    assert Holder(model=holder.model).model is holder.model
    bad = {"model": {"arch": "flux", "quantize": 7}, "network": {"type": "lora", "linear": 0}}
    assert errors_of(Holder, **bad) == {
        "model.name_or_path": "missing",
        "model.quantize": "bool_parsing",
        "network.linear": "greater_than_equal",
    }


def test_the_optimizer_is_a_plugin_with_checked_options() -> None:
    section = TrainSection.model_validate({"optimizer": "prodigy", "optimizer_params": {"d_coef": 2}})
    plugin = section.optimizer_plugin()
    assert isinstance(plugin, OptimizerPlugin)
    assert plugin.d_coef == 2.0  # type: ignore[attr-defined]
    assert errors_of(TrainSection, optimizer="adamw", optimizer_params={"d_coef": 2}) == {
        "optimizer_params.d_coef": "refused"
    }
    assert errors_of(TrainSection, optimizer="adamww") == {"optimizer": "value_error"}


def test_derived_values() -> None:
    assert DatasetSection(folder_path="a", resolution=[512, 768, 512]).resolutions == (512, 768)
    assert DatasetSection(folder_path="a", dataset_path="b").folder.name == "b"
    assert TrainSection(gradient_accumulation_steps=3).accumulate == 3
    network = type("N", (NetworkPlugin,), {"build": lambda *_: None})
    assert (network(rank=8).effective_rank, network(rank=8).effective_alpha) == (8, 8.0)
    assert (network(linear=4, alpha=2).effective_alpha, network(linear=4, linear_alpha=1).effective_alpha) == (2.0, 1.0)


@pytest.mark.parametrize("text", ["bf16", "BF16", "bfloat16"])
def test_a_precision_has_several_names(text: str) -> None:
    assert TrainSection(dtype=text).dtype == "bf16"  # type: ignore[arg-type]


def test_text_from_numbers() -> None:
    assert DatasetSection(folder_path="a", trigger_word=123).trigger_word == "123"  # type: ignore[arg-type]


def test_a_process_that_reads_its_own_keys() -> None:
    class Free(ProcessPlugin):
        model_config = {"extra": "allow"}

        def build(self, job: Any) -> Any:
            return None

    free = Free.model_validate({"type": "free", "anything": {"goes": 1}})
    assert free.spelled_out()["anything"] == {"goes": 1}
    assert takes_any_key(Free)
    assert first_unknown(Free, {}, ("anything", "else")) is None
    assert first_unknown(SdTrainer, {}, ("anything",)) is not None


def test_paths_are_followed_into_the_chosen_plugin() -> None:
    data = {"model": {"arch": "example_pixels"}, "datasets": [{}]}
    assert first_unknown(SdTrainer, data, ("model", "depth")) is None
    assert first_unknown(SdTrainer, {"model": {"arch": "flux"}}, ("model", "depth")) is not None
    assert first_unknown(SdTrainer, data, ("train", "optimizer_params", "anything")) is None
    assert first_unknown(SdTrainer, data, ("datasets", 0, "folder_path")) is None
    assert first_unknown(SdTrainer, data, ("datasets", 1, "folder_path")) == (1, ["0"])
    assert first_unknown(SdTrainer, data, ("sample", "prompts", 0)) == (2, [])


def test_job_kinds_are_those_of_jobs() -> None:
    from jobs.kinds import KINDS

    assert set(JOB_KINDS) == set(KINDS)


def test_schedules_and_their_options_are_those_of_the_training_library() -> None:
    from toolkit.config.sections.schedule import AT_LEAST, SHARED, LrSchedule
    from toolkit.training.schedules import SHAPES, schedule

    assert set(get_args(LrSchedule)) == set(SHAPES)
    for name in SHAPES:
        for option in (*OWN.get(name, ()), *SHARED):
            value = max(1, AT_LEAST.get(option, 1))
            check_params(name, {option: value})
            assert schedule(name, 100, {option: value}, 1e-4)(0) >= 0


def test_choices_that_work_are_those_of_the_training_library() -> None:
    from toolkit.config.sections.objective import REFUSED
    from toolkit.trainer.rules import HUBER
    from toolkit.training.distances import ERRORS
    from toolkit.training.times import QUANTILES, RANKS

    fields = TrainSection.model_fields
    assert fields["timestep_type"].annotation == Literal[tuple(QUANTILES)] | None  # type: ignore[valid-type]
    assert fields["content_or_style"].annotation == Literal[tuple(RANKS)]  # type: ignore[valid-type]
    assert set(get_args(fields["loss_type"].annotation)) == {*ERRORS, *HUBER, "stepped", "mean_flow"}
    assert set(REFUSED) < {*get_args(fields["loss_type"].annotation), *get_args(fields["loss_target"].annotation)}
