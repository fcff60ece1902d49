"""FLUX.1: what is its own, and sabotaged versions that the contract test must notice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from family_contract import (
    assert_near,
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
    gradients,
)
from family_subject import Subject, loaded
from flux_case import flux_case
from PIL import Image
from torch import Tensor

from extensions_built_in.flux.family import FluxFamily
from extensions_built_in.flux.tiny import save_tiny
from extensions_built_in.networks.lora import LoraNetwork
from toolkit.models.conditions import Conditions, Row, collate
from toolkit.models.flow import flow_steps
from toolkit.models.latents import mode, scale_shift
from toolkit.networks.files import write_weights
from toolkit.training.path import Path as NoisePath

HALF = torch.tensor([0.5], dtype=torch.float64)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(flux_case(save_tiny), tmp_path_factory.mktemp("flux") / "dev")


# -- sabotage ---------------------------------------------------------------------------------------------------------


class WrongSign(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return -super().predict(noisy, t, cond)


class LateByOneStep(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, t - 0.001, cond)


class Transposed(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy.mT, t, cond).mT


class DeafToGuidance(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, t, cond.plus(guidance=torch.ones(len(noisy))))


class DeafToPooled(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, t, cond.plus(pooled=torch.ones_like(cond["pooled"])))


class DeafToTime(FluxFamily):
    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, torch.full_like(t, 0.3), cond)


class FixedShift(FluxFamily):
    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, object]:
        return flow_steps(steps, 4096, self.facts.scheduler)


class Trimmed(FluxFamily):
    """Drops the padding that the network attends to."""

    def encode_prompt(
        self, texts: list[str], images: Sequence[Sequence[Image.Image]] | None = None, negative: bool = False
    ) -> list[Row]:
        rows = super().encode_prompt(texts, images, negative)
        return [
            {**row, "text": row["text"][: 3 + 2 * len(text.split())]} for text, row in zip(texts, rows, strict=True)
        ]


class Unshifted(FluxFamily):
    def encode_image(self, pixels: Tensor) -> Tensor:
        return mode(self.parts["vae"].encode(pixels)) * scale_shift(self.parts["vae"])[0]


class Sampled(FluxFamily):
    def encode_image(self, pixels: Tensor) -> Tensor:
        scale, shift = scale_shift(self.parts["vae"])
        return (self.parts["vae"].encode(pixels).latent_dist.sample() - shift) * scale


class ForgetsItsTokenizer(FluxFamily):
    needs: Mapping[str, tuple[str, ...]] = {**FluxFamily.needs, "encode_prompt": ("text_encoder", "text_encoder_2")}


class CastsTime(FluxFamily):
    """Rounds the time to a few bits, as a careless cast to a narrow type does."""

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return super().predict(noisy, (t * 4 + 0.6).round() / 4, cond)


class NegatedPath(NoisePath):
    def wanted(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        return -super().wanted(x, e, t)


class CurvedPath(NoisePath):
    def noisy(self, x: Tensor, e: Tensor, t: Tensor) -> Tensor:
        return super().noisy(x, e, t**1.01)


class ForgetsAlpha(LoraNetwork):
    def write(self, path: Path, dtype: torch.dtype, header: Mapping[str, str]) -> None:
        tensors = {
            f"{self.prefix}{name}.{part}.weight": getattr(layer, part)["default"].weight
            for name, layer in self.layers.items()
            for part in ("lora_A", "lora_B")
        }
        write_weights(path, tensors, dtype, header)


class ForeignPrefix(LoraNetwork):
    """Keys that FluxPipeline reads without an error, and without an effect."""

    def tensors(self) -> dict[str, Tensor]:
        return {name.replace("transformer", "diffusion_model", 1): one for name, one in super().tensors().items()}


SABOTAGE: list[tuple[type[FluxFamily], str]] = [
    (WrongSign, "parity"),
    (LateByOneStep, "parity"),
    (Transposed, "parity"),
    (DeafToGuidance, "parity"),
    (FixedShift, "parity"),
    (Trimmed, "parity"),
    (Trimmed, "encoders"),
    (Unshifted, "encoders"),
    (Sampled, "encoders"),
    (Trimmed, "rows"),
    (DeafToGuidance, "inputs"),
    (DeafToPooled, "inputs"),
    (DeafToTime, "inputs"),
    (CastsTime, "bf16"),
]


@pytest.mark.parametrize(("sabotaged", "check"), SABOTAGE, ids=lambda value: getattr(value, "__name__", value))
def test_the_contract_notices(subject: Subject, tmp_path: Path, sabotaged: type[FluxFamily], check: str):
    family = sabotaged(subject.build(torch.bfloat16 if check == "bf16" else torch.float32).parts)
    checks: dict[str, Callable[[], None]] = {
        "parity": lambda: check_parity(subject, family),
        "encoders": lambda: check_encoders(subject, family),
        "rows": lambda: check_rows(subject, family, tmp_path),
        "inputs": lambda: check_inputs_matter(subject, family),
        "bf16": lambda: check_bf16(subject, subject.build(), family),
    }
    with pytest.raises(AssertionError):
        checks[check]()


def test_the_contract_notices_a_part_that_is_not_declared(subject: Subject):
    with pytest.raises(RuntimeError, match=r"tokenizer is not loaded: use it inside `with parts.using\('tokenizer'\)"):
        check_shapes(subject, ForgetsItsTokenizer(subject.build().parts))


@pytest.mark.parametrize("path", [NegatedPath, CurvedPath])
def test_the_oracle_notices_another_path(subject: Subject, path: type[NoisePath]):
    family = subject.build()
    with pytest.raises(AssertionError, match=r"off the path|oracle's picture"):
        check_oracle(subject, family, path.of(family.facts))


def test_the_contract_notices_a_layer_that_cannot_learn(subject: Subject):
    family = subject.build()

    def detached(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output.detach()

    with loaded(family):
        family.denoiser.transformer_blocks[0].ff_context.register_forward_hook(detached)
        with pytest.raises(AssertionError, match=r"get no gradient: .*ff_context"):
            check_fresh_lora(subject, family)


@pytest.mark.parametrize(("network", "alpha"), [(ForgetsAlpha, 1), (ForeignPrefix, 4)])
def test_the_contract_notices_a_lora_file_that_diffusers_misreads(
    subject: Subject, tmp_path: Path, network: type[LoraNetwork], alpha: float
):
    with pytest.raises(AssertionError):
        check_lora_file(subject, subject.build(), tmp_path, alpha, network)


def test_the_contract_notices_checkpointing_that_changes_gradients(subject: Subject):
    plain, family = gradients(subject, subject.build()), subject.build(checkpointing=True)
    plan = family.parts.plans["transformer"]

    def sabotaged(transformer: torch.nn.Module) -> torch.nn.Module:
        transformer = plan.prepare(transformer)
        real = transformer._gradient_checkpointing_func
        transformer._gradient_checkpointing_func = lambda block, x, text, temb, *rest: real(
            block, x, text, temb * 0.99, *rest
        )
        return transformer

    family.parts.plans["transformer"] = replace(plan, prepare=sabotaged)
    with pytest.raises(AssertionError):
        check_checkpointing(subject, family, plain)


# -- what is FLUX's own -----------------------------------------------------------------------------------------------


def test_facts_come_from_the_checkpoint(subject: Subject):
    facts = subject.build().facts
    assert (facts.channels, facts.stride, facts.multiple, facts.prediction) == (4, 2, 8, "flow")
    assert facts.scheduler["_class_name"] == "FlowMatchEulerDiscreteScheduler" and facts.guidance == "embedded"


def test_guidance_defaults_to_one_and_counts_for_the_whole_batch(subject: Subject):
    family = subject.build()
    with loaded(family), torch.no_grad():
        noisy, t = subject.noise(family), HALF.expand(2)
        cond = collate(family.encode_prompt(["a red circle", "two dogs"]))
        one = family.predict(noisy, t, cond.plus(guidance=torch.ones(2)))
        torch.testing.assert_close(family.predict(noisy, t, cond), one, rtol=0, atol=0)
        two = family.predict(noisy, t, cond.plus(guidance=torch.full((2,), 2.0)))
        torch.testing.assert_close(family.predict(noisy, t, cond.plus(guidance=torch.tensor(2.0))), two)


def test_bypass_switches_guidance_off_for_training_but_not_for_sampling(subject: Subject):
    plain, bypassing = subject.build(), subject.build(bypass=True)
    with loaded(plain), loaded(bypassing), torch.no_grad():
        noisy, cond = subject.noise(plain, 1), collate(plain.encode_prompt(["two dogs"]))
        guided = plain.predict(noisy, HALF, cond)
        assert (bypassing.predict(noisy, HALF, cond) - guided).abs().max() > 1e-3
        sampling = cond.plus(guidance=torch.tensor([3.5]))
        assert_near(bypassing.predict(noisy, HALF, sampling), plain.predict(noisy, HALF, sampling), "sampling", 0)

        embed = bypassing.denoiser.time_text_embed
        time = embed.timestep_embedder(embed.time_proj(HALF.float() * 1000))
        wanted = time + embed.text_embedder(cond["pooled"])
        torch.testing.assert_close(embed(HALF.float() * 1000, cond["pooled"]), wanted)


def test_bypass_keeps_the_names_of_the_weights(subject: Subject):
    with loaded(subject.build(bypass=True)) as family:
        names = set(family.denoiser.state_dict())
    assert names == set(subject.pipeline.transformer.state_dict())


def test_true_guidance_moves_away_from_the_negative(subject: Subject):
    yes, no = torch.tensor([2.0]), torch.tensor([1.0])
    assert subject.build().guide(yes, no, 3.0, HALF) == torch.tensor([4.0])


def test_text_length_follows_the_tokenizers(subject: Subject):
    with loaded(subject.build()) as family, torch.no_grad():
        (row,) = family.encode_prompt(["dogs " * 100])
        assert row["text"].shape == (family.parts["tokenizer_2"].model_max_length, 96)
