"""The family of a file, by its header and by its keys."""

from __future__ import annotations

import pytest
from key_models import MODELS, lora, native

from toolkit.networks.keys.codec import FORMATS, Codec
from toolkit.networks.keys.family import list_candidates
from toolkit.networks.keys.guess import guess_family, key_format, stems_of

CANDIDATES = list_candidates()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_the_family_is_told_by_the_layers(name: str, format: str) -> None:
    keys = Codec(MODELS[name].names, MODELS[name].prefix, format).encode(native(name, lora))
    guess = guess_family({}, keys, CANDIDATES)
    assert MODELS[name].names in [candidate.names for candidate in guess.candidates] or name == "ltx2"
    expected = {"sd1": "sd15", "wan": "wan22_14b"}.get(name, name)
    archs = [arch for candidate in guess.candidates for arch in candidate.archs]
    assert expected in archs
    if (name, format) != ("lumina2", "diffusers"):
        assert len(guess.candidates) == 1
    assert key_format(stems_of(keys)) == format


@pytest.mark.parametrize(
    ("entry", "value", "arch"),
    [
        ("ss_base_model_version", "flux.1", "flux"),
        ("ss_base_model_version", "sdxl_base_v1-0", "sdxl"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora", "sdxl"),
        ("base_model", "Qwen/Qwen-Image", "qwen_image"),
        ("ss_base_model_version", "wan_2.2_14b", "wan22_14b"),
    ],
)
def test_the_header_decides_where_it_says_something(entry: str, value: str, arch: str) -> None:
    guess = guess_family({entry: value}, ["transformer.x.lora_A.weight"], CANDIDATES)
    assert len(guess.candidates) == 1 and arch in guess.candidates[0].archs
    assert guess.reason == "by the file's header"


def test_families_that_share_all_names_of_a_file_are_one_guess() -> None:
    keys = [f"transformer.single_transformer_blocks.3.{part}.lora_A.weight" for part in ("attn.to_q", "proj_mlp")]
    (candidate,) = guess_family({}, keys, CANDIDATES).candidates
    assert {"flux", "chroma"} <= set(candidate.archs)


def test_families_that_call_the_layers_of_a_file_differently_are_several_guesses() -> None:
    guess = guess_family({}, ["transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight"], CANDIDATES)
    assert {"flux", "auraflow"} <= {arch for candidate in guess.candidates for arch in candidate.archs}
    assert len(guess.candidates) > 1


def test_nothing_is_guessed_for_unknown_layers_and_text_encoders_alone() -> None:
    for key in ("transformer.mystery.0.w.lora_A.weight", "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha"):
        assert guess_family({}, [key], CANDIDATES).candidates == ()
