"""Sabotaged families of every kind, on their tiny checkpoints: the contract test must notice each of them.

tests/extensions_built_in/test_families.py passes the same checks on the same cases as they are; FLUX's own sabotage is
in tests/extensions_built_in/test_flux_family.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import family_contract
import pytest
import torch
from family_contract import (
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
    gradients,
)
from family_subject import Subject, loaded
from ltx_case import CASES as LTX
from lumina2_case import CASES as LUMINA2
from PIL import Image
from qwen_image_case import CASES as QWEN
from safetensors.torch import load_file, save_file
from stable_diffusion_case import CASES as STABLE_DIFFUSION
from torch import Tensor
from wan_case import CASES as WAN
from zimage_case import CASES as ZIMAGE

from extensions_built_in.ltx.family import LTXFamily
from extensions_built_in.lumina2.family import Lumina2Family
from extensions_built_in.networks.lora import LoraNetwork
from extensions_built_in.qwen_image.family import QwenImageEditFamily, QwenImageFamily
from extensions_built_in.stable_diffusion.family_xl import SdxlFamily
from extensions_built_in.wan.family import WanFamily
from extensions_built_in.zimage.family import ZImageFamily
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts, Family
from toolkit.networks.full import FullWeights
from toolkit.training.path import Path as NoisePath

CASES = STABLE_DIFFUSION | WAN | QWEN | LUMINA2 | ZIMAGE | LTX


@pytest.fixture(scope="module")
def subject_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Subject]:
    """A case by name, made once."""
    made: dict[str, Subject] = {}

    def find(name: str) -> Subject:
        if name not in made:
            made[name] = Subject(CASES[name], tmp_path_factory.mktemp("teeth") / name)
        return made[name]

    return find


# -- families ---------------------------------------------------------------------------------------------------------


class IndexOffByOne(SdxlFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, t - 1 / 1000, cond)


class EpsilonReadAsV(SdxlFamily):
    @property
    def facts(self) -> Facts:
        return replace(vars(self)["facts"], prediction="v")


class DeafToSize(SdxlFamily):
    def _size(self, cond: Conditions, noisy: Tensor) -> Tensor:
        return super()._size(Conditions({}), noisy)


class SwappedExperts(WanFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        first, second = self.parts["transformer"].forward, self.parts["transformer_2"].forward
        self.parts["transformer"].forward, self.parts["transformer_2"].forward = second, first
        try:
            return super().predict(noisy, t, cond)
        finally:
            self.parts["transformer"].forward, self.parts["transformer_2"].forward = first, second


class HighBoundary(WanFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        real, self.boundary = self.boundary, 0.95
        try:
            return super().predict(noisy, t, cond)
        finally:
            self.boundary = real


class SwappedTimes(WanFamily):
    @property
    def facts(self) -> Facts:
        facts: Facts = vars(self)["facts"]
        high, low = facts.trainables
        return replace(facts, trainables=(replace(high, times=low.times), replace(low, times=high.times)))


class UnpaddedText(WanFamily):
    def _inputs(self, noisy: Tensor, t: Tensor, cond: Conditions) -> dict[str, Tensor]:
        return {**super()._inputs(noisy, t, cond), "encoder_hidden_states": cond["text"]}


class NoisyGiven(WanFamily):
    """Tells the network that the first frame is as noisy as the others."""

    def _times(self, t: Tensor, noisy: Tensor, given: Tensor | None) -> Tensor:
        return super()._times(t, noisy, None)


class DeafToFirstFrame(WanFamily):
    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        row = super().encode_condition(images, shape)
        return {name: torch.zeros_like(tensor) for name, tensor in row.items()}


class WithoutNorm(QwenImageFamily):
    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        return no + scale * (yes - no)


class SeesItsTemplate(QwenImageFamily):
    num_dropped = 0


class NegatedReference(QwenImageEditFamily):
    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        return {name: -tensor for name, tensor in super().encode_condition(images, shape).items()}


class DeafToReference(QwenImageEditFamily):
    def encode_condition(self, images: list[Image.Image], shape: tuple[int, ...]) -> Row:
        return {name: torch.zeros_like(tensor) for name, tensor in super().encode_condition(images, shape).items()}

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        return super().encode_prompt(texts, None, negative)


class TimeFromNoise(Lumina2Family):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, 1 - t, cond)


class InstructedNegative(Lumina2Family):
    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        return super().encode_prompt(texts, images)


class UsualScale(ZImageFamily):
    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        return no + scale * (yes - no)


class DeafToFps(LTXFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, t, cond.plus(fps=torch.tensor(25.0)))


SABOTAGE: list[tuple[str, type, str]] = [
    ("sdxl", IndexOffByOne, "parity"),
    ("sdxl", EpsilonReadAsV, "oracle"),
    ("sdxl", DeafToSize, "inputs"),
    ("wan22-14b", SwappedExperts, "parity"),
    ("wan22-14b", HighBoundary, "parity"),
    ("wan22-14b", HighBoundary, "fresh_lora"),
    ("wan22-14b", SwappedTimes, "fresh_lora"),
    ("wan22-14b", UnpaddedText, "parity"),
    ("wan22-5b-i2v", NoisyGiven, "parity"),
    ("wan22-5b-i2v", DeafToFirstFrame, "inputs"),
    ("qwen-image", WithoutNorm, "parity"),
    ("qwen-image", SeesItsTemplate, "encoders"),
    ("qwen-image-edit", NegatedReference, "parity"),
    ("qwen-image-edit", DeafToReference, "inputs"),
    ("lumina2", TimeFromNoise, "parity"),
    ("lumina2", InstructedNegative, "parity"),
    ("zimage", UsualScale, "parity"),
    ("ltx", DeafToFps, "parity"),
    ("ltx", DeafToFps, "inputs"),
]


@pytest.mark.parametrize(
    ("case", "sabotaged", "check"), SABOTAGE, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_the_contract_notices(subject_of: Callable[[str], Subject], case: str, sabotaged: type, check: str):
    subject = subject_of(case)
    family: Any = subject.build()
    assert issubclass(sabotaged, type(family))
    # the constructors differ
    family.__class__ = sabotaged
    checks: dict[str, Callable[[Subject, Family], None]] = {
        "parity": check_parity,
        "encoders": check_encoders,
        "inputs": check_inputs_matter,
        "fresh_lora": check_fresh_lora,
        "oracle": lambda subject, family: check_oracle(subject, family, NoisePath.of(family.facts)),
    }
    with pytest.raises(AssertionError):
        checks[check](subject, family)


# -- files ------------------------------------------------------------------------------------------------------------


class PartAsPrefix(LoraNetwork):
    """Names the second expert's layers `transformer_2.`, which diffusers reads nowhere."""

    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        if self.trainable.part == "transformer":
            return tensors
        return {name.replace("transformer.", "transformer_2.", 1): tensor for name, tensor in tensors.items()}


class DropsATensor(FullWeights):
    def _save_folder(self, folder: Path, weights: dict[str, Tensor]) -> None:
        super()._save_folder(folder, weights)
        (file,) = folder.glob("*.safetensors")
        saved = load_file(file)
        del saved[min(saved)]
        save_file(saved, file, {"format": "pt"})


def test_the_contract_notices_an_expert_with_a_foreign_prefix(subject_of: Callable[[str], Subject], tmp_path: Path):
    subject = subject_of("wan22-14b")
    with pytest.raises(AssertionError):
        check_lora_file(subject, subject.build(), tmp_path, 4, PartAsPrefix)


def test_the_contract_notices_a_tensor_that_is_not_saved(subject_of: Callable[[str], Subject], tmp_path: Path):
    subject = subject_of("zimage")
    with pytest.raises(AssertionError):
        check_full_weights(subject, subject.build(), tmp_path, DropsATensor)


def test_the_contract_notices_a_job_that_does_not_learn(
    subject_of: Callable[[str], Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    subject, job_of = subject_of("sdxl"), family_contract.job_of

    def lazy(*arguments: Any) -> dict[str, Any]:
        job = job_of(*arguments)
        job["config"]["process"][0]["train"]["lr"] = 1e-60
        return job

    monkeypatch.setattr(family_contract, "job_of", lazy)
    with pytest.raises(AssertionError, match="unet was not trained"):
        check_job(subject, subject.build(), tmp_path)


# -- weights ----------------------------------------------------------------------------------------------------------


def test_the_contract_notices_weights_that_were_not_quantized(subject_of: Callable[[str], Subject]):
    subject = subject_of("zimage")
    with pytest.raises(AssertionError, match=r"8-bit weights are off by 0\.000"):
        check_quantized(subject, subject.build(), subject.build())


def test_the_contract_notices_stale_weights_of_an_offloaded_layer(subject_of: Callable[[str], Subject]):
    subject = subject_of("zimage")
    plain, offloaded = gradients(subject, subject.build()), subject.build(layer_offloading=True)
    with loaded(offloaded):
        stream = offloaded.denoiser.layer_stream
        assert len(stream.layers) > len(stream._ring), "no layer would have to make room for another"
        copy = stream._copy

        def copy_once(index: int) -> None:
            buffer = stream._buffer(index)
            if buffer.holds is None:
                copy(index)
            buffer.holds = index

        stream._copy = copy_once
        with pytest.raises(AssertionError):
            check_offloading(subject, offloaded, plain)
