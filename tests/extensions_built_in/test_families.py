"""The contract test on every built-in family. A new family adds its variants to CASES."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from family_contract import (
    Case,
    Subject,
    check_bf16,
    check_checkpointing,
    check_encoders,
    check_fresh_lora,
    check_inputs_matter,
    check_lora_file,
    check_oracle,
    check_parity,
    check_rows,
    check_shapes,
)
from flux_case import flux_case

from extensions_built_in.flux.tiny import save_tiny
from toolkit.training.path import Path as NoisePath

CASES: dict[str, Case] = {
    "flux-dev": flux_case(save_tiny),
    "flux-schnell": flux_case(partial(save_tiny, guidance_embeds=False), takes_guidance=False),
}


@pytest.fixture(scope="module", params=CASES)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES[request.param], tmp_path_factory.mktemp("families") / request.param)


def test_shapes(subject: Subject):
    check_shapes(subject.build())


def test_encoders_equal_the_pipeline(subject: Subject):
    check_encoders(subject, subject.build())


def test_sampling_equals_the_pipeline(subject: Subject):
    check_parity(subject, subject.build())


def test_prompt_time_and_guidance_matter(subject: Subject):
    check_inputs_matter(subject, subject.build())


def test_a_stored_batch_equals_one_by_one(subject: Subject, tmp_path: Path):
    check_rows(subject.build(), tmp_path)


def test_a_fresh_lora_is_the_identity_and_learns_everywhere(subject: Subject):
    check_fresh_lora(subject.build())


@pytest.mark.parametrize("alpha", [4, 1, 10])
def test_a_lora_file_acts_in_diffusers_as_here(subject: Subject, tmp_path: Path, alpha: float):
    check_lora_file(subject, subject.build(), tmp_path / "lora.safetensors", alpha)


def test_checkpointing_changes_no_gradient(subject: Subject):
    check_checkpointing(lambda checkpointing: subject.build(checkpointing=checkpointing))


def test_bf16_stays_near_fp32(subject: Subject):
    check_bf16(subject, subject.build(), subject.build(torch.bfloat16))


def test_schedule_time_target_and_sign_belong_together(subject: Subject):
    family = subject.build()
    check_oracle(family, NoisePath.of(family.facts))
