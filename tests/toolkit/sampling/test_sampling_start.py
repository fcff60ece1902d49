"""Image to image: the same numbers as the pipelines of diffusers, for flow and for noise prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.context import Context
from toolkit.sampling.encoding import Encoding
from toolkit.sampling.prompts import SamplePrompt
from toolkit.sampling.render import render
from toolkit.sampling.start import Start, begin, steps_left
from toolkit.training.text_rows import Prompt

SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ours(plugin: Any, cpu: Context, prompt: SamplePrompt, start: torch.Tensor, strength: float) -> torch.Tensor:
    """Latents made from latents with a family."""
    from dataclasses import replace

    family = plugin.build(cpu, checkpointing=False, bypass_guidance=False)
    encoding = Encoding(family)
    with family.parts.using(*family.needs["encode_prompt"], *family.needs["predict"]), torch.no_grad():

        def row(text: Prompt) -> Any:
            return family.encode_prompt([text.text], negative=text.negative)[0]

        request = replace(encoding.request(prompt, row), start=start, strength=strength)
        return render(family, cpu, [request])[0]


@pytest.mark.parametrize("name", ["PNDMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_stable_diffusion_is_as_in_diffusers(cpu: Context, tmp_path: Path, name: str) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    from extensions_built_in.stable_diffusion.config import StableDiffusion1
    from extensions_built_in.stable_diffusion.tiny import save_tiny

    more = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
    folder = save_tiny(tmp_path / "sd", scheduler={"_class_name": name, "steps_offset": 1, **SCALED, **more})
    start = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    plugin = StableDiffusion1(arch="sd15", name_or_path=str(folder))
    for strength in (0.3, 0.75):
        theirs = pipe(
            "a cat",
            image=start,
            strength=strength,
            num_inference_steps=8,
            guidance_scale=4.0,
            negative_prompt="two dogs",
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images
        prompt = SamplePrompt("a cat", "two dogs", 64, 64, seed=3, steps=8, guidance=4.0)
        torch.testing.assert_close(ours(plugin, cpu, prompt, start, strength), theirs, rtol=1e-4, atol=1e-4)


def test_flux_is_as_in_diffusers(cpu: Context, tiny_flux: Path) -> None:
    from diffusers import FluxImg2ImgPipeline

    from extensions_built_in.flux.config import Flux

    plugin = Flux(arch="flux", name_or_path=str(tiny_flux))
    family = plugin.build(cpu, checkpointing=False, bypass_guidance=False)
    start = torch.randn(1, family.facts.channels, 8, 8, generator=torch.Generator().manual_seed(1))
    pipe = FluxImg2ImgPipeline.from_pretrained(tiny_flux)
    pipe.set_progress_bar_config(disable=True)
    side = 8 * family.facts.stride
    theirs = pipe(
        "a cat",
        image=start,
        height=side,
        width=side,
        strength=0.5,
        num_inference_steps=8,
        guidance_scale=2.0,
        max_sequence_length=pipe.tokenizer_2.model_max_length,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
    ).images
    prompt = SamplePrompt("a cat", "", side, side, seed=3, steps=8, guidance=2.0)
    made = ours(plugin, cpu, prompt, start, 0.5)
    unpacked = pipe._unpack_latents(theirs, side, side, pipe.vae_scale_factor)
    torch.testing.assert_close(made, unpacked, rtol=1e-4, atol=1e-4)


def test_the_ends_of_the_strength(cpu: Context) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    noise, latents = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - n / 10 for n in range(10)])
    x, left = begin(scheduler, noise, 10, Start(latents, 1.0))
    assert torch.equal(x, noise) and len(left) == 10
    x, left = begin(scheduler, noise, 10, Start(latents, 0.0))
    assert torch.equal(x, latents) and len(left) == 0
    x, left = begin(scheduler, noise, 10, Start(latents, 0.2))
    torch.testing.assert_close(x, 0.8 * latents + 0.2 * noise, rtol=0, atol=1e-5)
    assert len(left) == 2
    assert [steps_left(100, share) for share in (0.29, 0.001, 0.999)] == [29, 1, 99]


def test_a_schedule_of_shares_of_the_picture(cpu: Context) -> None:
    """Mochi's scheduler counts from noise, 0, to the picture, 1."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    noise, latents = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    scheduler.set_timesteps(10)
    x, _ = begin(scheduler, noise, 10, Start(latents, 0.2))
    level = float(1 - scheduler.sigmas[8])
    assert level < 0.5
    torch.testing.assert_close(x, (1 - level) * latents + level * noise)
