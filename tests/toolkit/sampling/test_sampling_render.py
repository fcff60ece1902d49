"""From prompts to pictures: grouping, noise, guidance, precision, and what a network's strength does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from family_contract import adapters, assert_near, trained
from torch import Tensor

from extensions_built_in.flux.family import FluxFamily
from toolkit.context import Context
from toolkit.models.conditions import Conditions
from toolkit.models.family import Facts
from toolkit.registry import get_registry
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import decode, frames_of, render, seeded_noise
from toolkit.sampling.request import Request, groups, latent_shape, make_request, needs_negative
from toolkit.sampling.sample import rescaled, sample
from toolkit.sampling.schedulers import make_scheduler

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


def requests_of(family: FluxFamily, prompts: Sequence[SamplePrompt]) -> list[Request]:
    with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
        rows = family.encode_prompt([prompt.prompt for prompt in prompts])
    return [make_request(p, family.facts, row, None, {}) for p, row in zip(prompts, rows, strict=True)]


def noise_of(seed: int, shape: tuple[int, ...]) -> Tensor:
    return seeded_noise(torch.Generator().manual_seed(seed), shape)


def asked(prompt: SamplePrompt, **row: Tensor) -> Request:
    return Request(prompt, row)


# -- which prompts go together ----------------------------------------------------------------------------------------


def test_prompts_of_one_kind_share_a_batch_of_a_megapixel():
    large = asked(replace(TINY, width=512, height=512))
    assert list(groups([large] * 6)) == [[0, 1, 2, 3], [4, 5]]
    assert list(groups([asked(replace(TINY, width=2048, height=1024))] * 2)) == [[0], [1]]
    assert list(groups([asked(replace(TINY, width=512, height=512, num_frames=5))] * 2)) == [[0], [1]]
    assert list(groups([])) == []


@pytest.mark.parametrize(
    "other",
    [
        {"width": 48},
        {"height": 48},
        {"steps": 4},
        {"guidance": 1.0},
        {"network_multiplier": 0.5},
        {"num_frames": 5},
        {"guidance_rescale": 0.5},
    ],
)
def test_what_differs_for_the_whole_batch_splits_it(other: dict[str, float]):
    assert list(groups([asked(TINY), asked(replace(TINY, **other)), asked(TINY)])) == [[0, 2], [1]]


def test_what_differs_per_sample_does_not():
    other = replace(TINY, prompt="a cat", seed=5, negative="blue", index=1)
    texts = [torch.zeros(length, 8) for length in (3, 5)]
    assert list(groups([asked(TINY, text=texts[0]), asked(other, text=texts[1])])) == [[0, 1]]


def test_references_of_several_sizes_or_numbers_split_a_batch():
    one, other = torch.zeros(4, 2, 2), torch.zeros(4, 2, 3)
    rows = [{"reference.0": one}, {"reference.0": other}, {"reference.0": one}, {}]
    rows.append({"reference.0": one, "reference.1": one})
    assert list(groups([asked(TINY, **row) for row in rows])) == [[0, 2], [1], [3], [4]]


# -- what a request holds ---------------------------------------------------------------------------------------------


def test_the_negative_prompt_sees_the_same_pictures_and_numbers():
    facts = replace(CFG, numbers=("size", "fps"))
    text, no, reference = torch.ones(2, 3), torch.zeros(1, 3), torch.ones(4, 2, 2)
    request = make_request(TINY, facts, {"text": text}, {"text": no}, {"reference.0": reference})
    assert request.no is not None and request.row.keys() == request.no.keys() == {"text", "reference.0", "size", "fps"}
    assert request.row["text"] is text and request.no["text"] is no and request.no["reference.0"] is reference
    assert request.row["size"].tolist() == [32, 24, 0, 0, 32, 24] and request.row["fps"].item() == 16


def test_guidance_is_an_input_or_a_second_pass():
    row = {"text": torch.ones(2, 3)}
    embedded = make_request(TINY, replace(CFG, guidance="embedded"), row, row, {})
    assert embedded.no is None and embedded.row["guidance"].item() == 3.5
    weak = make_request(replace(TINY, guidance=1.0), CFG, row, row, {})
    assert weak.no is None and "guidance" not in weak.row


@pytest.mark.parametrize(
    ("num_frames", "frame_stride", "shape"), [(1, 0, (2, 4, 3)), (9, 4, (2, 3, 4, 3)), (1, 4, (2, 1, 4, 3))]
)
def test_latents_have_frames_where_the_model_makes_videos(num_frames: int, frame_stride: int, shape: tuple[int, ...]):
    assert latent_shape(replace(TINY, num_frames=num_frames), replace(CFG, frame_stride=frame_stride)) == shape


def test_negative_texts_are_needed_for_guidance_by_a_second_pass_only():
    assert needs_negative(TINY, CFG) and not needs_negative(replace(TINY, guidance=1.0), CFG)
    assert not needs_negative(TINY, replace(CFG, guidance="embedded"))


# -- noise and pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 42, 2**40])
def test_noise_is_that_of_diffusers(seed: int):
    wanted = randn_tensor((1, 4, 6, 8), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(noise_of(seed, (4, 6, 8)), wanted)


def test_pixels_become_the_picture_that_diffusers_makes():
    pixels = torch.randn(3, 5, 7) * 1.2
    (wanted,) = VaeImageProcessor().postprocess(pixels[None], output_type="pil")
    (found,) = frames_of(pixels)
    assert found.size == (7, 5)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    both = frames_of(torch.stack([pixels, -pixels], dim=1))
    np.testing.assert_array_equal(np.asarray(both[0]), np.asarray(wanted))
    np.testing.assert_array_equal(np.asarray(both[1]), np.asarray(frames_of(-pixels)[0]))


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
    request = make_request(prompt, CFG, {"text": torch.tensor(2.0)}, {"text": torch.tensor(1.0)}, {})
    (found,) = render(family, cpu, [request])  # type: ignore[arg-type]
    torch.testing.assert_close(found, noise_of(4, (2, 4, 3)) - speed)
    assert family.times == pytest.approx([t for t in (1, 2 / 3, 1 / 3) for _ in range(1 + (guidance > 1))])


def test_rescaling_gives_the_guided_prediction_its_deviation_back():
    yes = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    guided = 3 * yes + 1
    full, half = rescaled(guided, yes, 1.0), rescaled(guided, yes, 0.5)
    torch.testing.assert_close(full.flatten(1).std(dim=1), yes.flatten(1).std(dim=1))
    torch.testing.assert_close(half, (full + guided) / 2)


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
    requests = requests_of(family, [TINY, replace(TINY, prompt="a red circle", seed=9)])
    with family.parts.using("transformer"):
        together = render(family, cpu, requests)
        alone = [render(family, cpu, [request])[0] for request in requests]
        again = render(family, cpu, requests)
    assert [latents.shape for latents in together] == [(1, 4, 16, 12)] * 2
    assert all(torch.equal(one, other) for one, other in zip(together, again, strict=True))
    assert_near(torch.cat(together), torch.cat(alone), "a batch")
    assert not together[0].requires_grad and (together[0] - together[1]).abs().max() > 0.1


def test_pictures_have_the_asked_size(family: FluxFamily, cpu: Context):
    requests = requests_of(family, [TINY])
    with family.parts.using("transformer"):
        latents = render(family, cpu, requests)
    with family.parts.using("vae"):
        ((image,),) = decode(family, latents)
    assert image.size == (24, 32) and image.mode == "RGB"


def test_embedded_guidance_is_an_input(family: FluxFamily, cpu: Context):
    requests = requests_of(family, [replace(TINY, guidance=g) for g in (1.0, 3.5)])
    with family.parts.using("transformer"):
        weak, strong = (render(family, cpu, [request])[0] for request in requests)
    assert (weak - strong).abs().max() > 1e-3


def test_a_network_of_no_strength_is_the_base(family: FluxFamily, cpu: Context):
    requests = requests_of(family, [TINY])
    with family.parts.using("transformer"):
        (base,) = render(family, cpu, requests)
        lora = trained(adapters(family, 4))[0]
        (full,) = render(family, cpu, requests)
        with lora.scaled(0):
            (none,) = render(family, cpu, requests)
    assert torch.equal(none, base) and (full - base).abs().max() > 1e-2


def test_bf16_computes_in_bf16_and_keeps_wide_latents(cpu: Context, family: FluxFamily):
    narrow_context = Context(cpu.device, torch.bfloat16, seed=42)
    requests = requests_of(family, [TINY])
    with family.parts.using("transformer"):
        (wide,) = render(family, cpu, requests)
    narrow = FluxFamily(type(family.parts)(family.parts.source, cpu.device, torch.bfloat16))
    with narrow.parts.using("transformer"):
        (found,) = render(narrow, narrow_context, requests)
    assert found.dtype == torch.float32
    assert 0 < (found - wide).abs().max() < 0.2 * wide.abs().mean()
