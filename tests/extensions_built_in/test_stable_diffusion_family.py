"""Stable Diffusion's own: text encoders that are trained, sizes, empty prompts, v prediction, which layers count."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from family_contract import assert_differs, assert_near, complaints
from family_subject import NEGATIVE, TEXTS, Subject, loaded
from safetensors.torch import load_file, save_file
from stable_diffusion_case import CASES
from torch import Tensor

from extensions_built_in.networks.lora import LoraNetwork
from extensions_built_in.stable_diffusion.unet import BLOCKS
from toolkit.models.conditions import collate
from toolkit.models.family import Family

HALF = torch.tensor([0.5], dtype=torch.float64)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES["sdxl"], tmp_path_factory.mktemp("stable_diffusion") / "sdxl")


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES["sd15"], tmp_path_factory.mktemp("stable_diffusion") / "sd15")


def loras(family: Family) -> list[LoraNetwork]:
    """A LoRA of rank 4 on everything that can be trained, with noise where training would have left something."""
    found = [LoraNetwork(family.parts[one.part], one, rank=4, alpha=2) for one in family.facts.trainables]
    rng = torch.Generator().manual_seed(1)
    for param in (param for lora in found for param in lora.params.values()):
        param.data.normal_(std=0.1, generator=rng)
    return found


def answer(family: Family, texts: tuple[str, ...] = TEXTS[:1]) -> Tensor:
    """A prediction from text to noise, through the encoders."""
    noisy = torch.randn(len(texts), 4, 16, 12, generator=torch.Generator().manual_seed(0))
    return family.predict(noisy, HALF.expand(len(texts)), collate(family.encode_prompt(list(texts))))


@pytest.mark.parametrize("name", ["sdxl", "sd15"])
def test_a_lora_of_the_text_encoders_learns_everywhere_and_acts_in_diffusers_as_here(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
):
    subject: Subject = request.getfixturevalue(name)
    family, pipeline = subject.build(), subject.load_pipeline()
    tensors: dict[str, Tensor] = {}
    with loaded(family):
        found = loras(family)
        answer(family).square().mean().backward()
        for lora in found:
            dead = [key for key, param in lora.params.items() if param.grad is None or not param.grad.any()]
            assert not dead, f"{lora.prefix} learns nothing in {dead[:3]}"
            lora.write(tmp_path / "one.safetensors", torch.float32, {})
            tensors |= load_file(tmp_path / "one.safetensors")
        with torch.no_grad():
            ours = subject.render(family)
    expected = {"text_encoder.text_model.encoder", "unet.down_blocks.1"}
    expected |= {"text_encoder_2.text_model.encoder"} if name == "sdxl" else set()
    assert expected <= {".".join(key.split(".")[:3]) for key in tensors}

    save_file(tensors, tmp_path / "all.safetensors")
    with complaints("diffusers", "peft", "transformers") as complained:
        pipeline.load_lora_weights(tmp_path / "all.safetensors")
    assert not complained
    assert_near(subject.run_pipeline(pipeline, family, "latent"), ours, "latents with the LoRA in diffusers")


def test_facts(sdxl: Subject, sd15: Subject):
    facts = sdxl.build().facts
    assert (facts.channels, facts.stride, facts.multiple, facts.prediction) == (4, 2, 4, "epsilon")
    assert (facts.base_model, facts.guidance, facts.numbers) == ("sdxl_1.0", "cfg", ("size",))
    assert [one.part for one in facts.trainables] == ["unet", "text_encoder", "text_encoder_2"]
    facts = sd15.build().facts
    assert (facts.base_model, facts.numbers) == ("sd_1.5", ())
    assert [one.is_text_encoder for one in facts.trainables] == [False, True]
    for arch, base_model in {"sd1": "sd_1.5", "sd2": "sd_2.1"}.items():
        assert sd15.build(arch=arch).facts.base_model == base_model
    for arch in ("ssd", "vega"):
        assert sdxl.build(arch=arch).facts.base_model == arch


def test_size_defaults_to_an_uncropped_picture(sdxl: Subject):
    family = sdxl.build()
    noisy = sdxl.noise(family, 1)
    with loaded(family), torch.no_grad():
        cond = collate(family.encode_prompt(list(TEXTS[:1])))
        default = family.predict(noisy, HALF, cond)
        same = family.predict(noisy, HALF, cond.plus(size=torch.tensor([[32.0, 24.0, 0.0, 0.0, 32.0, 24.0]])))
        cropped = family.predict(noisy, HALF, cond.plus(size=torch.tensor([[32.0, 24.0, 8.0, 0.0, 32.0, 24.0]])))
    assert_near(same, default, "the same size", 0)
    assert_differs(cropped, default, "a crop")


def test_an_empty_negative_prompt_is_zeros_where_sdxl_wants_them(sdxl: Subject, tmp_path: Path):
    family = sdxl.build()
    with loaded(family), torch.no_grad():
        empty, other = family.encode_prompt(["", NEGATIVE], negative=True)
        (positive,) = family.encode_prompt([""])
    assert not empty["text"].any() and not empty["pooled"].any()
    assert other["text"].any() and positive["text"].any() and positive["pooled"].any()

    index = sdxl.folder / "model_index.json"
    kept = index.read_text()
    index.write_text(json.dumps({**json.loads(kept), "force_zeros_for_empty_prompt": False}))
    try:
        family = sdxl.build()
    finally:
        index.write_text(kept)
    with loaded(family), torch.no_grad():
        assert family.encode_prompt([""], negative=True)[0]["text"].any()


def test_a_text_encoder_that_is_not_used_gives_zeros_and_is_not_trained(sdxl: Subject):
    both, second = sdxl.build(), sdxl.build(use_text_encoder_1=False)
    with loaded(both), torch.no_grad():
        (wanted,) = both.encode_prompt(list(TEXTS[:1]))
    with loaded(second), torch.no_grad():
        (row,) = second.encode_prompt(list(TEXTS[:1]))
    assert not row["text"][:, :64].any()
    assert_near(row["text"][:, 64:], wanted["text"][:, 64:], "the second encoder", 0)
    assert_near(row["pooled"], wanted["pooled"], "the pooled vector", 0)
    assert [one.part for one in second.facts.trainables] == ["unet", "text_encoder_2"]


def test_v_prediction_can_be_declared(sd15: Subject):
    facts = sd15.build(is_v_pred=True).facts
    assert facts.prediction == "v" and facts.scheduler["prediction_type"] == "v_prediction"
    assert sd15.build().facts.prediction == "epsilon"


def test_a_prediction_type_that_is_not_known_is_an_error(sd15: Subject, tmp_path: Path):
    file = sd15.folder / "scheduler" / "scheduler_config.json"
    kept = file.read_text()
    file.write_text(json.dumps({**json.loads(kept), "prediction_type": "sample"}))
    try:
        with pytest.raises(ValueError, match="'sample' is not supported"):
            sd15.build()
    finally:
        file.write_text(kept)


@pytest.mark.parametrize(
    ("name", "is_trained"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", True),
        ("mid_block.attentions.0.proj_in", True),
        ("up_blocks.0.resnets.0.conv1", True),
        ("down_blocks.0.downsamplers.0.conv", True),
        ("up_blocks.0.upsamplers.0.conv", True),
        ("up_blocks.0.resnets.0.conv_shortcut", False),
        ("up_blocks.0.resnets.0.time_emb_proj", False),
        ("time_embedding.linear_1", False),
        ("conv_in", False),
    ],
)
def test_blocks_are_transformers_and_3x3_convolutions(name: str, is_trained: bool):
    assert bool(re.fullmatch(BLOCKS, name)) == is_trained
