"""The contract test on every variant of every built-in family.

A family lists its variants as CASES in `<family>_case.py` beside this file. docs/families.md is made of what ran here:
scripts/family_table.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from family_contract import (
    check_bf16,
    check_checkpointing,
    check_encoders,
    check_fresh_lora,
    check_full_weights,
    check_inputs_matter,
    check_job,
    check_lora_file,
    check_offloading,
    check_oracle,
    check_parity,
    check_quantized,
    check_rows,
    check_shapes,
    gradients,
    recomputes,
)
from family_subject import Case, Subject, loaded
from torch import Tensor

from toolkit.models.family import Family
from toolkit.training.path import Path as NoisePath

CASES: dict[str, Case] = {
    name: case
    for file in sorted(Path(__file__).parent.glob("*_case.py"))
    for name, case in importlib.import_module(file.stem).CASES.items()
}


@pytest.fixture(scope="module", params=CASES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES[request.param], tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="module")
def family(subject: Subject) -> Iterator[Family]:
    """One with all parts in memory, for checks that only ask it. Do not change it."""
    with loaded(subject.build()) as family:
        yield family


@pytest.fixture(scope="module")
def plain(subject: Subject, family: Family) -> list[Tensor]:
    """The gradients of a LoRA where nothing is recomputed and nothing offloaded."""
    with loaded(subject.build_beside(family)) as kept:
        assert not recomputes(kept)
        return gradients(subject, kept)


def test_shapes(subject: Subject):
    check_shapes(subject, subject.build())


def test_encoders_equal_the_pipeline(subject: Subject, family: Family):
    check_encoders(subject, family)


def test_sampling_equals_the_pipeline(subject: Subject, family: Family):
    check_parity(subject, family)


def test_prompt_time_and_guidance_matter(subject: Subject, family: Family):
    check_inputs_matter(subject, family)


def test_a_stored_batch_equals_one_by_one(subject: Subject, family: Family, tmp_path: Path):
    check_rows(subject, family, tmp_path)


def test_a_fresh_lora_is_the_identity_and_learns_everywhere(subject: Subject, family: Family):
    check_fresh_lora(subject, subject.build_beside(family))


def test_a_lora_file_acts_in_diffusers_as_here(subject: Subject, family: Family, tmp_path: Path):
    check_lora_file(subject, subject.build_beside(family), tmp_path, alpha=1)


def test_checkpointing_changes_no_gradient(subject: Subject, family: Family, plain: list[Tensor]):
    check_checkpointing(subject, subject.build_beside(family, checkpointing=True), plain)


def test_offloading_changes_no_gradient(subject: Subject, plain: list[Tensor]):
    check_offloading(subject, subject.build(layer_offloading=True), plain)


def test_bf16_stays_near_fp32(subject: Subject, family: Family):
    check_bf16(subject, family, subject.build(torch.bfloat16))


def test_8_bit_weights_stay_near_fp32_and_carry_a_lora(subject: Subject, family: Family):
    check_quantized(subject, family, subject.build(quantize=True, qtype="qint8"))


def test_a_full_fine_tune_opens_in_diffusers(subject: Subject, family: Family, tmp_path: Path):
    check_full_weights(subject, subject.build_beside(family), tmp_path)


def test_schedule_time_target_and_sign_belong_together(subject: Subject, family: Family):
    check_oracle(subject, family, NoisePath.of(family.facts))


def test_a_job_trains_samples_and_saves(subject: Subject, family: Family, tmp_path: Path):
    check_job(subject, family, tmp_path)
