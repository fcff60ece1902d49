"""Qwen-Image: where what looks at pictures comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_subject import Subject
from PIL import Image
from qwen_image_case import CASES
from safetensors.torch import save_file

from toolkit.models.family import Family


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject(CASES["qwen-image-edit"], tmp_path / "edit")


def text(family: Family, color: str) -> torch.Tensor:
    with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
        return family.encode_prompt(["two dogs"], images=[[Image.new("RGB", (64, 48), color)]])[0]["text"]


def test_the_picture_processor_of_a_single_file_is_that_of_its_extras(subject: Subject, tmp_path: Path):
    file = tmp_path / "edit.safetensors"
    save_file({"weight": torch.zeros(1)}, file)
    family = subject.build(name_or_path=str(file), extras_name_or_path=str(subject.folder))
    wanted = text(subject.build(), "red")
    torch.testing.assert_close(text(family, "red"), wanted, rtol=0, atol=0)
    assert not torch.allclose(text(family, "blue"), wanted)
