"""What is compared with the model as it was: numbers worked out by hand, and gradients of a real LoRA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from extensions_built_in.networks.lora import LoraNetwork
from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts, Trainable
from toolkit.training.batch import Batch
from toolkit.training.companions import has_word, in_class, replace_word, same_for_all
from toolkit.training.objective import Objective, as_it_is, path_target, predict
from toolkit.training.path import Path
from toolkit.training.preservation import (
    Base,
    apart,
    base_target,
    blanks_cleared,
    diverge,
    outside,
    stay,
    stay_outside,
)
from toolkit.training.step import aim, step_losses
from toolkit.training.times import Times

FACTS = Facts(channels=2, stride=8, multiple=16, base_model="x")
FLOW = Path.of(FACTS)
BLANK = same_for_all("blank", ("",))
LINEAR = Times("linear")


class Knob:
    """A trained number beside a family whose answer is what its text stands for."""

    facts = FACTS

    def __init__(self) -> None:
        self.trained, self.strength = torch.nn.Parameter(torch.tensor(0.5)), 1.0

    @contextmanager
    def scaled(self, multiplier: float) -> Iterator[None]:
        before, self.strength = self.strength, self.strength * multiplier
        yield
        self.strength = before

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        told = cond["text"].view(-1, 1, 1, 1) * torch.ones_like(noisy)
        return told * (1 + self.strength * self.trained)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"mu": 0.0}


def batch_of(texts: tuple[str, ...] = ("one", "two"), blank: float = 2.0, width: int = 4) -> Batch:
    count = len(texts)
    generator = torch.Generator().manual_seed(0)
    x, e = (torch.randn(count, 2, 3, width, generator=generator) for _ in range(2))
    u = torch.rand(count, generator=generator, dtype=torch.float64)
    others = {"blank": Conditions({"text": torch.full((count,), blank)})}
    cond = Conditions({"text": torch.full((count,), 4.0)})
    other_texts = {"blank": ("",) * count}
    return Batch(x, cond, torch.ones(count), u, e, texts, others=others, other_texts=other_texts)


def parts(knob: Knob, batch: Batch, **rules: Any) -> list[Tensor]:
    return list(step_losses(knob, batch, Objective(FLOW, LINEAR, **rules)))  # type: ignore[arg-type]


def base_of(knob: Knob) -> Base:
    return Base(knob)  # type: ignore[arg-type]


def test_other_texts_are_held_where_they_were() -> None:
    knob = Knob()
    _, kept = parts(knob, batch_of(), terms=[stay(base_of(knob), BLANK, 3.0)])
    # the network answers 2 * (1 + 0.5), the model without it 2
    assert float(kept.detach()) == pytest.approx(3.0 * 1.0**2)
    kept.backward()
    # d/dw of 3 (2 w)^2 at w = 0.5; nothing comes through the base
    assert float(knob.trained.grad) == pytest.approx(3 * 2 * 4 * 0.5) and knob.strength == 1


def test_samples_count_by_their_weight_and_not_where_their_own_caption_is_that_text() -> None:
    knob = Knob()
    batch = replace(batch_of(("one", "")), weight=torch.tensor([0.5, 1.0]))
    _, kept = parts(knob, batch, terms=[stay(base_of(knob), BLANK, 1.0)])
    assert float(kept) == pytest.approx(0.5 * 1.0 / 2)
    assert len(parts(knob, batch_of(("", "")), terms=[stay(base_of(knob), BLANK, 1.0)])) == 1


def test_a_batch_that_should_stay_has_the_base_as_its_target() -> None:
    knob = Knob()
    target = base_target(base_of(knob), path_target, predict)
    (kept,) = parts(knob, replace(batch_of(), keeps_base=True), target=target)
    assert float(kept) == pytest.approx((4 * 0.5) ** 2)
    batch = batch_of()
    (plain,) = parts(knob, batch, target=target)
    assert float(plain) == pytest.approx(float((6 - (batch.noise - batch.latents)).square().mean()))


def test_outside_of_a_mask_is_what_it_leaves_out() -> None:
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 1.0, 0.0]])
    found = outside(mask.view(4, 1, 2, 2)).view(4, 4)
    assert found.tolist() == [[0, 2, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 2]]


def test_the_mask_splits_what_is_learned_from_what_stays() -> None:
    knob, batch = Knob(), batch_of()
    mask = torch.zeros(2, 1, 3, 4)
    mask[..., :2] = 2.0
    base = base_of(knob)
    (loss,) = parts(knob, replace(batch, mask=mask), beside=[stay_outside(base, predict, 0.5)])
    learned = (6 - (batch.noise - batch.latents)).square()[..., :2].mean()
    assert float(loss) == pytest.approx(float(learned) + 0.5 * 2.0**2, rel=1e-5)
    (unmasked,) = parts(knob, batch, beside=[stay_outside(base, predict, 0.5)])
    assert float(unmasked) == pytest.approx(float((6 - (batch.noise - batch.latents)).square().mean()))


def test_divergence_is_rewarded() -> None:
    knob, batch = Knob(), batch_of()
    (plain,), (apart_,) = parts(knob, batch), parts(knob, batch, beside=[diverge(base_of(knob), predict)])
    assert float(apart_) == pytest.approx(float(plain) - 2.0**2)
    (kept,) = parts(knob, replace(batch, keeps_base=True), beside=[diverge(base_of(knob), predict)])
    assert float(kept) == pytest.approx(float(plain))


def test_given_frames_are_left_out() -> None:
    one, other = torch.zeros(1, 2, 3, 2, 2), torch.ones(1, 2, 3, 2, 2)
    other[:, :, 0] = 9
    batch = replace(batch_of(("one",)), cond=Conditions({"given": torch.zeros(1, 2, 1, 2, 2)}))
    assert apart(one, other, batch).tolist() == [1.0]


def test_blank_captions_show_nothing() -> None:
    batch = batch_of(("one", " "))
    found = blanks_cleared(as_it_is)(batch)
    assert torch.equal(found.latents[0], batch.latents[0]) and not found.latents[1].any()


def test_the_class_stands_where_the_trigger_did() -> None:
    from toolkit.data.caption import CaptionRule
    from toolkit.data.treatment import Treatment

    assert replace_word("a mochi, mochimochi and mochi's", "mochi", "cat") == "a cat, mochimochi and cat's"
    assert has_word("a [x] (y)", "[x]") and not has_word("category", "cat")
    plain, special = Treatment(caption=CaptionRule(trigger="mochi")), CaptionRule(trigger="tok")
    companion = in_class("class", "cat")
    assert companion.texts("a mochi", plain) == ("a cat",)
    assert companion.texts("a tok mochi", Treatment(caption=special, kind="dog")) == ("a dog mochi",)
    assert companion.texts("", plain) == ("",)


class Layers:
    """A family of one layer with a LoRA on it, recomputed for the backward pass if asked."""

    facts = FACTS

    def __init__(self, recompute: bool) -> None:
        torch.manual_seed(0)
        self.module, self.recompute = torch.nn.Sequential(torch.nn.Linear(4, 4)).requires_grad_(False), recompute
        self.network = LoraNetwork(self.module, Trainable("transformer", "0", "transformer."), 2, 2.0)
        for param in self.network.params.values():
            param.data.normal_(generator=torch.Generator().manual_seed(1))

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        x = noisy + cond["text"].view(-1, 1, 1, 1)
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.module, x, use_reentrant=False)
        return self.module(x)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"mu": 0.0}


def gradients(recompute: bool, dtype: torch.dtype | None = None, **terms: float) -> list[Tensor]:
    """The gradient of a step at half the network's strength, as the loop takes it."""
    family = Layers(recompute)
    context = torch.autocast("cpu", dtype) if dtype else nullcontext()
    base = Base(family.network)
    rules = {"terms": [stay(base, BLANK, multiplier) for multiplier in terms.values()]}
    with family.network.scaled(0.5):
        made = step_losses(family, batch_of(), Objective(FLOW, LINEAR, **rules))  # type: ignore[arg-type]
        while True:
            with context:
                part = next(made, None)
            if part is None:
                break
            part.backward()
    assert family.network.layers["0"].scaling["default"] == 1.0
    assert all(param.grad is None for name, param in family.module.named_parameters() if "lora" not in name)
    return [param.grad for param in family.network.params.values() if param.grad is not None]


def test_recomputed_activations_have_the_strength_of_their_pass() -> None:
    plain, recomputed, without = gradients(False, kept=2.0), gradients(True, kept=2.0), gradients(True)
    assert len(plain) == len(recomputed) == 2
    for one, another, other in zip(plain, recomputed, without, strict=True):
        torch.testing.assert_close(one, another)
        assert (one - other).abs().max() > 1e-3


def test_the_pass_without_the_network_does_not_cut_the_gradient_off_under_autocast() -> None:
    exact, rounded = gradients(False, kept=2.0), gradients(False, torch.bfloat16, kept=2.0)
    assert len(rounded) == 2
    for one, another in zip(exact, rounded, strict=True):
        assert (one - another).norm() < 0.03 * one.norm()


def test_the_base_is_asked_with_the_network_off_and_before_a_prediction_too() -> None:
    family = Layers(False)
    shot = aim(batch_of(), FLOW, torch.tensor([0.2, 0.8], dtype=torch.float64), batch_of().noise)
    frozen = torch.nn.functional.linear(
        shot.noisy + 4.0, family.module[0].base_layer.weight, family.module[0].base_layer.bias
    )
    with torch.autocast("cpu", torch.bfloat16):
        base = Base(family.network).answer(family, shot)  # type: ignore[arg-type]
        family.predict(shot.noisy, shot.t, shot.batch.cond).float().square().mean().backward()
    assert (base - frozen).abs().max() < 0.05 and base.dtype == torch.float32 and not base.requires_grad
    assert all(param.grad is not None for param in family.network.params.values())
