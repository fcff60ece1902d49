"""From prompts to pictures: grouping, noise, guidance, precision, and what a network's strength does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from family_contract import assert_near, trained_lora
from torch import Tensor

from extensions_built_in.flux.family import FluxFamily
from toolkit.context import Context
from toolkit.models.conditions import Conditions, Row
from toolkit.models.family import Facts
from toolkit.registry import get_registry
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import decode, groups, make_scheduler, picture, render, seeded_noise, texts_of
from toolkit.sampling.sample import sample

TINY = SamplePrompt("two dogs", width=24, height=32, steps=3, guidance=3.5, seed=4)
CFG = Facts(
    channels=2,
    stride=8,
    multiple=16,
    base_model="x",
    scheduler={"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0},
)


@pytest.fixture(scope="module")
def family(tiny_flux: object, cpu: Context) -> FluxFamily:
    plugin = get_registry().load("models", "flux")
    config = plugin.model_validate({"arch": "flux", "name_or_path": str(tiny_flux)})
    return config.build(cpu, checkpointing=False, bypass_guidance=False)


def rows_of(family: FluxFamily, prompts: Sequence[SamplePrompt]) -> dict[str, Row]:
    texts, _ = texts_of(prompts, family.facts)
    with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
        return dict(zip(texts, family.encode_prompt(texts), strict=True))


# -- which prompts go together ----------------------------------------------------------------------------------------


def test_prompts_of_one_kind_share_a_batch_of_a_megapixel():
    large = replace(TINY, width=512, height=512)
    assert list(groups([large] * 6)) == [[0, 1, 2, 3], [4, 5]]
    assert list(groups([replace(large, width=2048, height=1024)] * 2)) == [[0], [1]]
    assert list(groups([])) == []


@pytest.mark.parametrize(
    "other", [{"width": 48}, {"height": 48}, {"steps": 4}, {"guidance": 1.0}, {"network_multiplier": 0.5}]
)
def test_what_differs_for_the_whole_batch_splits_it(other: dict[str, float]):
    assert list(groups([TINY, replace(TINY, **other), TINY])) == [[0, 2], [1]]


def test_what_differs_per_sample_does_not():
    other = replace(TINY, prompt="a cat", seed=5, negative="blue", index=1)
    assert list(groups([TINY, other])) == [[0, 1]]


def test_negative_texts_are_needed_for_guidance_by_a_second_pass_only():
    guided = replace(TINY, negative="blue")
    prompts = [guided, replace(guided, prompt="a cat", negative=""), replace(guided, negative="never", guidance=1.0)]
    assert texts_of(prompts, CFG) == (["two dogs", "a cat"], ["blue", ""])
    assert texts_of(prompts, replace(CFG, guidance="embedded")) == (["two dogs", "a cat"], [])


# -- noise and pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 42, 2**40])
def test_noise_is_that_of_diffusers(seed: int):
    wanted = randn_tensor((1, 4, 6, 8), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(seeded_noise(seed, (4, 6, 8)), wanted[0])


def test_pixels_become_the_picture_that_diffusers_makes():
    pixels = torch.randn(3, 5, 7) * 1.2
    (wanted,) = VaeImageProcessor().postprocess(pixels[None], output_type="pil")
    found = picture(pixels)
    assert found.size == (7, 5)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))


def test_the_scheduler_is_the_checkpoints():
    scheduler = make_scheduler(replace(CFG, scheduler={**CFG.scheduler, "shift": 5.0}))
    assert isinstance(scheduler, FlowMatchEulerDiscreteScheduler) and scheduler.config.shift == 5.0


# -- sampling ---------------------------------------------------------------------------------------------------------


class TwoTexts:
    """A family whose prediction is its text; it remembers the times."""

    facts = CFG

    def __init__(self) -> None:
        self.times: list[float] = []

    def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        assert t.shape == (len(noisy),) and t.dtype == torch.float64
        self.times.append(t[0].item())
        return cond["text"].view(-1, 1, 1, 1).expand_as(noisy)

    def schedule(self, steps: int, shape: tuple[int, ...]) -> dict[str, object]:
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)}

    def guide(self, yes: Tensor, no: Tensor, scale: float, t: Tensor) -> Tensor:
        return no + scale * (yes - no)


@pytest.mark.parametrize(("guidance", "speed"), [(3.0, 1 + 3 * (2 - 1)), (1.0, 2)])
def test_guidance_takes_a_second_pass_with_the_negative(cpu: Context, guidance: float, speed: float):
    family = TwoTexts()
    prompt = replace(TINY, negative="no", guidance=guidance)
    rows = {"two dogs": {"text": torch.tensor(2.0)}}, {"no": {"text": torch.tensor(1.0)}}
    (found,) = render(family, cpu, [prompt], *rows)  # type: ignore[arg-type]
    torch.testing.assert_close(found, seeded_noise(4, (2, 4, 3))[None] - speed)
    assert family.times == pytest.approx([t for t in (1, 2 / 3, 1 / 3) for _ in range(1 + (guidance > 1))])


def test_given_frames_stay_as_they_are():
    given = torch.full((1, 2, 1, 4, 3), 7.0)
    cond = Conditions({"text": torch.tensor([2.0]), "given": given})

    class Video(TwoTexts):
        def predict(self, noisy: Tensor, t: Tensor, cond: Conditions) -> Tensor:
            assert torch.equal(noisy[:, :, :1], given)
            return torch.full_like(noisy, 2.0)

    noise = torch.randn(1, 2, 3, 4, 3)
    found = sample(Video(), make_scheduler(CFG), noise, cond, steps=3)  # type: ignore[arg-type]
    assert torch.equal(found[:, :, :1], given)
    torch.testing.assert_close(found[:, :, 1:], noise[:, :, 1:] - 2)


def test_a_batch_equals_one_by_one_and_a_repeat(family: FluxFamily, cpu: Context):
    prompts = [TINY, replace(TINY, prompt="a red circle", seed=9)]
    rows = rows_of(family, prompts)
    with family.parts.using("transformer"):
        together = render(family, cpu, prompts, rows, {})
        alone = [render(family, cpu, [prompt], rows, {})[0] for prompt in prompts]
        again = render(family, cpu, prompts, rows, {})
    assert [latents.shape for latents in together] == [(1, 4, 16, 12)] * 2
    assert all(torch.equal(one, other) for one, other in zip(together, again, strict=True))
    assert_near(torch.cat(together), torch.cat(alone), "a batch")
    assert not together[0].requires_grad and (together[0] - together[1]).abs().max() > 0.1


def test_pictures_have_the_asked_size(family: FluxFamily, cpu: Context):
    rows = rows_of(family, [TINY])
    with family.parts.using("transformer"):
        latents = render(family, cpu, [TINY], rows, {})
    with family.parts.using("vae"):
        (image,) = decode(family, latents)
    assert image.size == (24, 32) and image.mode == "RGB"


def test_embedded_guidance_is_an_input(family: FluxFamily, cpu: Context):
    rows = rows_of(family, [TINY])
    with family.parts.using("transformer"):
        weak, strong = (render(family, cpu, [replace(TINY, guidance=g)], rows, {})[0] for g in (1.0, 3.5))
    assert (weak - strong).abs().max() > 1e-3


def test_a_network_of_no_strength_is_the_base(family: FluxFamily, cpu: Context):
    rows = rows_of(family, [TINY])
    with family.parts.using("transformer"):
        (base,) = render(family, cpu, [TINY], rows, {})
        lora = trained_lora(family, 4, 4)
        (full,) = render(family, cpu, [TINY], rows, {})
        with lora.scaled(0):
            (none,) = render(family, cpu, [TINY], rows, {})
    assert torch.equal(none, base) and (full - base).abs().max() > 1e-2


def test_bf16_computes_in_bf16_and_keeps_wide_latents(tiny_flux: object, cpu: Context, family: FluxFamily):
    narrow_context = Context(cpu.device, torch.bfloat16, seed=42)
    rows = rows_of(family, [TINY])
    with family.parts.using("transformer"):
        (wide,) = render(family, cpu, [TINY], rows, {})
    narrow = FluxFamily(type(family.parts)(family.parts.source, cpu.device, torch.bfloat16))
    with narrow.parts.using("transformer"):
        (found,) = render(narrow, narrow_context, [TINY], rows, {})
    assert found.dtype == torch.float32
    assert 0 < (found - wide).abs().max() < 0.2 * wide.abs().mean()
