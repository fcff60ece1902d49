"""FLUX.2: its schedule, what it does with references, the chats around its prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from family_contract import check_encoders, check_parity
from family_subject import Subject, loaded
from flux2_case import CASES
from PIL import Image

from extensions_built_in.flux2 import family as module
from extensions_built_in.flux2.family import cut, empirical_mu
from toolkit.models.conditions import collate

HALF = torch.tensor([0.5], dtype=torch.float64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flux2")


@pytest.fixture(scope="module")
def klein(folder: Path) -> Subject:
    return Subject(CASES["flux2-klein-4b-references"], folder / "klein")


@pytest.fixture(scope="module")
def dev(folder: Path) -> Subject:
    return Subject(CASES["flux2-dev"], folder / "dev")


@pytest.mark.parametrize("tokens", [16, 256, 4096, 4300, 4301, 16384])
@pytest.mark.parametrize("steps", [4, 10, 28, 200])
def test_the_shift_is_the_fitted_one(tokens: int, steps: int):
    assert empirical_mu(tokens, steps) == pytest.approx(compute_empirical_mu(tokens, steps), abs=1e-9)


def test_the_contract_notices_references_at_another_time(klein: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TIME_STEP", 1)
    with pytest.raises(AssertionError, match="latents: off by"):
        check_parity(klein, klein.build())


def test_the_contract_notices_a_linear_shift(klein: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "empirical_mu", lambda tokens, steps: 0.5 + tokens / 6000)
    with pytest.raises(AssertionError, match="latents: off by"):
        check_parity(klein, klein.build())


def test_the_contract_notices_the_other_family_s_chat(dev: Subject):
    family = dev.build()
    family.text = Subject(CASES["flux2-klein-4b"], dev.folder.parent / "other").build().text
    with pytest.raises(AssertionError, match="condition text"):
        check_encoders(dev, family)


@pytest.mark.parametrize(
    ("size", "max_pixels", "area", "wanted"),
    [
        ((96, 64), 10**6, None, (96, 64)),
        ((100, 79), 10**6, None, (96, 64)),
        ((2048, 1024), 1024 * 1024, None, (1440, 720)),
        ((64, 96), 10**6, 4 * 64 * 96, (128, 192)),
        ((640, 960), 10**6, 64 * 96, (64, 96)),
    ],
)
def test_sizes_of_references(size: tuple[int, int], max_pixels: int, area: int | None, wanted: tuple[int, int]):
    assert cut(Image.new("RGB", size), 16, max_pixels, area).size == wanted


def test_what_exceeds_multiples_is_cut_off_on_all_sides():
    picture = Image.new("RGB", (21, 16), "black")
    picture.paste("white", (2, 0, 18, 16))
    assert cut(picture, 16, 10**6).getcolors() == [(256, (255, 255, 255))]


def test_options_reach_the_references(klein: Subject):
    picture = Image.new("RGB", (128, 96), "red")
    shapes = {}
    for name, options in {
        "own": {},
        "small": {"control_image_max_pixels": 64 * 48},
        "matched": {"match_target_res": True},
    }.items():
        family = klein.build(model_kwargs=options)
        with family.parts.using("vae"), torch.no_grad():
            shapes[name] = family.encode_condition([picture], (16, 12, 16))["reference.0"].shape[1:]
    assert shapes == {"own": (24, 32), "small": (12, 16), "matched": (12, 16)}


def test_bypass_switches_guidance_off_for_training_but_not_for_sampling(dev: Subject):
    plain, bypassing = dev.build(), dev.build(bypass=True)
    noisy = dev.noise(plain, 1)
    with loaded(plain), loaded(bypassing), torch.no_grad():
        (row,) = plain.encode_prompt(["two dogs"])
        cond = collate([row])
        one = plain.predict(noisy, HALF, cond.plus(guidance=torch.tensor(1.0)))
        torch.testing.assert_close(plain.predict(noisy, HALF, cond), one, rtol=0, atol=0)
        assert (bypassing.predict(noisy, HALF, cond) - one).abs().max() > 1e-3
        sampling = cond.plus(guidance=torch.tensor([3.5]))
        torch.testing.assert_close(bypassing.predict(noisy, HALF, sampling), plain.predict(noisy, HALF, sampling))


def test_the_tokenizer_inside_a_processor_is_used(dev: Subject, tmp_path: Path):
    """As in FLUX.2-dev's own repository."""
    folder = shutil.copytree(dev.folder, tmp_path / "dev")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "tokenizer": ["transformers", "PixtralProcessor"]}))
    plain, family = dev.build(), dev.build(name_or_path=str(folder))
    with loaded(plain), loaded(family), torch.no_grad():
        one, other = (subject.encode_prompt(["two dogs"])[0]["text"] for subject in (plain, family))
    torch.testing.assert_close(one, other)


def test_a_literal_picture_token_is_no_picture(dev: Subject):
    family = dev.build()
    with loaded(family), torch.no_grad():
        one, other = family.encode_prompt(["two dogs", "two [IMG]dogs"])
    torch.testing.assert_close(one["text"], other["text"])
