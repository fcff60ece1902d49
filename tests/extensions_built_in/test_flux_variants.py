"""FLUX.1's variants: pictures with holes, sizes of references, samples without pictures, options."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxFillPipeline
from family_contract import check_inputs_matter, check_lora_file, check_parity, check_rows, check_shapes
from family_pipelines import kl_latents, unpacked
from family_subject import Case, Subject, loaded
from flux_case import CALL, CASES, SIZES, encode_prompt, with_modes
from PIL import Image, ImageOps
from pydantic import ValidationError

from extensions_built_in.flux.config import Flex2, FluxKontext
from extensions_built_in.flux.pictures import reference_size
from extensions_built_in.flux.tiny import save_tiny
from toolkit.models.conditions import collate
from toolkit.models.family import Family

HALF = torch.tensor([0.5], dtype=torch.float64)


def as_picture_and_mask(pictures: list[Image.Image]) -> dict[str, Any]:
    """The arguments of FluxFillPipeline: white is painted."""
    (picture,) = pictures
    return {"image": picture.convert("RGB"), "mask_image": ImageOps.invert(picture.getchannel("A"))}


FILL = Case(
    "flux_fill",
    # 4 channels of the masked picture, and 2 x 2 mask pixels per latent cell
    partial(save_tiny, pipeline="FluxFillPipeline", control_channels=8),
    latents=unpacked,
    encode_image=kl_latents,
    encode_prompt=encode_prompt,
    call=CALL,
    images=1,
    call_images=as_picture_and_mask,
    load_pipeline=lambda folder: with_modes(FluxFillPipeline.from_pretrained(folder)),
    sizes=SIZES,
)


class HoledSubject(Subject):
    """Its pictures have an alpha channel: soft from the left to the right, cut through a latent cell."""

    def pictures(self, family: Family, seed: int = 0) -> list[Image.Image]:
        pictures = super().pictures(family, seed)
        for picture in pictures:
            alpha = Image.linear_gradient("L").rotate(90 + 180 * (seed % 2)).resize(picture.size)
            alpha.paste(0, (3, 3, 12, 17))
            picture.putalpha(alpha)
        return pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def fill(folder: Path) -> Subject:
    return HoledSubject(FILL, folder / "fill")


@pytest.fixture(scope="module")
def flex2(folder: Path) -> Subject:
    return HoledSubject(CASES["flex2"], folder / "flex2")


@pytest.fixture(scope="module")
def kontext(folder: Path) -> Subject:
    return Subject(CASES["flux-kontext"], folder / "kontext")


@pytest.mark.parametrize("name", ["fill", "flex2"])
def test_holes_are_painted_as_in_the_pipeline(name: str, request: pytest.FixtureRequest, tmp_path: Path):
    subject = request.getfixturevalue(name)
    check_shapes(subject, subject.build())
    check_parity(subject, subject.build())
    check_inputs_matter(subject, subject.build())
    check_rows(subject, subject.build(), tmp_path)
    check_lora_file(subject, subject.build(), tmp_path, alpha=4)


def test_fill_needs_a_picture_with_holes(fill: Subject):
    family = fill.build()
    assert family.facts.needs_references
    with family.parts.using("vae"), pytest.raises(ValueError, match="needs an alpha channel"):
        family.encode_condition([Image.new("RGB", (24, 32))], (4, 16, 12))


def test_what_is_hidden_in_a_hole_has_no_effect_on_fill(fill: Subject):
    family = fill.build()
    red, blue = (Image.new("RGBA", (24, 32), color) for color in ("red", "blue"))
    for image in (red, blue):
        image.paste((0, 255, 0, 255), (0, 0, 12, 32))
        hole = Image.new("L", (24, 32), 255)
        hole.paste(0, (12, 0, 24, 32))
        image.putalpha(hole)
    with family.parts.using("vae"), torch.no_grad():
        one, other = (family.encode_condition([image], (4, 16, 12))["control"] for image in (red, blue))
    torch.testing.assert_close(one, other)


def test_flex2_without_pictures_paints_everything(flex2: Subject):
    family = flex2.build()
    noisy = flex2.noise(family, 1)
    with loaded(family), torch.no_grad():
        (row,) = family.encode_prompt(["two dogs"])
        zeros = torch.zeros(4, *noisy.shape[-2:])
        control = torch.cat([zeros, torch.ones_like(zeros[:1]), zeros])
        found = family.predict(noisy, HALF, collate([row]))
        wanted = family.predict(noisy, HALF, collate([{**row, "control": control}]))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_flex2_joins_a_control_and_a_picture_with_holes(flex2: Subject):
    family = flex2.build()
    (holed,) = flex2.pictures(family)
    plain = holed.convert("RGB")
    shape = flex2.shape(family)
    with family.parts.using("vae"), torch.no_grad():
        both = family.encode_condition([plain, holed], shape)["control"]
        painted = family.encode_condition([holed], shape)["control"]
        control = family.encode_condition([plain], shape)["control"]
        torch.testing.assert_close(both, torch.cat([painted[:5], control[5:]]))
        with pytest.raises(ValueError, match="one control picture and one to inpaint"):
            family.encode_condition([plain, plain], shape)


def test_control_pictures_of_another_size_are_resized(flex2: Subject):
    family = flex2.build()
    with family.parts.using("vae"), torch.no_grad():
        condition = family.encode_condition([Image.new("RGB", (100, 70), "red")], flex2.shape(family))
    assert condition["control"].shape == (9, 16, 12)


@pytest.mark.parametrize(
    ("size", "max_pixels", "area", "wanted"),
    [
        ((64, 96), 10**6, None, (64, 96)),
        ((70, 111), 10**6, None, (64, 96)),
        ((2048, 1024), 1024 * 1024, None, (1440, 720)),
        ((64, 96), 10**6, 4 * 64 * 96, (128, 192)),
        ((640, 960), 10**6, 64 * 96, (64, 96)),
        ((5, 2000), 10**6, None, (16, 2000)),
    ],
)
def test_sizes_of_references(size: tuple[int, int], max_pixels: int, area: int | None, wanted: tuple[int, int]):
    assert reference_size(size, 16, max_pixels, area) == wanted


def test_kontext_keeps_the_size_of_a_reference_unless_it_is_told_otherwise(kontext: Subject):
    picture = Image.new("RGB", (30, 41), "red")
    sizes = {}
    for name, options in {
        "own": {},
        "small": {"control_image_max_pixels": 15 * 20},
        "matched": {"match_target_res": True},
    }.items():
        family = kontext.build(model_kwargs=options)
        with family.parts.using("vae"), torch.no_grad():
            row = family.encode_condition([picture, picture], kontext.shape(family))
        sizes[name] = [tuple(latents.shape) for latents in row.values()]
    assert sizes == {"own": [(4, 20, 14)] * 2, "small": [(4, 10, 6)] * 2, "matched": [(4, 16, 12)] * 2}


def test_kontext_tells_references_from_the_target_and_from_each_other(kontext: Subject):
    family = kontext.build()
    noisy = kontext.noise(family, 1)
    with loaded(family), torch.no_grad():
        (row,) = family.encode_prompt(["two dogs"])
        one, other = kontext.noise(family, 2, seed=3)
        first = family.predict(noisy, HALF, collate([{**row, "reference.0": one, "reference.1": other}]))
        second = family.predict(noisy, HALF, collate([{**row, "reference.0": other, "reference.1": one}]))
    assert (first - second).abs().max() > 1e-4


def test_random_masks_are_refused_and_the_rest_is_read():
    flex2 = {"arch": "flex2", "name_or_path": "x"}
    with pytest.raises(ValidationError, match="not supported yet"):
        Flex2.model_validate({**flex2, "model_kwargs": {"control_dropout": 0.5}})
    assert Flex2.model_validate({**flex2, "model_kwargs": {"control_dropout": 0.0}})
    kontext = FluxKontext.model_validate({"arch": "flux_kontext", "name_or_path": "x"})
    assert kontext.model_kwargs.control_image_max_pixels == 1024**2
