"""Sample sections as people write them, read into complete prompts."""

import inspect
import random
from typing import Any

import pytest

from toolkit.config.sections.sample import SampleSection
from toolkit.sampling.prompts import SamplePrompt, Sides, fit_size, read_prompts


def read(*prompts: str | None, **section: Any) -> tuple[list[SamplePrompt], list[str]]:
    """Read prompts and return them with the notices."""
    notices: list[str] = []
    return read_prompts(prompts=prompts, notice=notices.append, **section), notices


def one(prompt: str, **section: Any) -> SamplePrompt:
    """Read one prompt that gives no notice."""
    found, notices = read(prompt, **section)
    assert notices == []
    return found[0]


def test_section_values_fill_a_plain_prompt() -> None:
    prompt = one("a cat", neg="blurry", seed=42, width=64, height=128, guidance_scale=4, sample_steps=9)
    assert prompt == SamplePrompt("a cat", "blurry", 64, 128, 42, 9, 4.0, 1.0, 0)


def test_all_keys_of_a_section_that_prompts_depend_on_are_handed_over() -> None:
    taken = set(inspect.signature(read_prompts).parameters)
    assert SampleSection().prompt_keys().keys() == taken & SampleSection.model_fields.keys()
    section = SampleSection(samples=[{"prompt": "a cat", "seed": 7}, {"prompt": "a dog"}], width=64, height=128)
    first, second = read_prompts(**section.prompt_keys())
    assert (first.seed, second.seed, second.width, second.height) == (7, 0, 64, 128)


def test_every_flag() -> None:
    text = "a cat --n dog, blurry --w 256 --h 320 --d 7 --l 3.5 --s 12 --m 0.5"
    assert one(text) == SamplePrompt("a cat", "dog, blurry", 256, 320, 7, 12, 3.5, 0.5, 0)
    assert one("a cat --seed 7 --cfg 3.5 --steps 12 --network_multiplier 0.5") == one(
        "a cat --d 7 --l 3.5 --s 12 --m 0.5"
    )
    assert one("--w 256 a cat in --h 320 a hat").prompt == "a cat in a hat"
    assert one("a cat --W=256").width == 256
    assert one("a cat\n --w 256\n--h 320\n") == one("a cat --w 256 --h 320")
    assert one("a cat --n --w 256", neg="blurry").negative == ""


@pytest.mark.parametrize(
    "prose",
    ["a cat -- in the rain", "a cat--with a hat", "mid--w 256", "- - - --", "a 1980s -w look", "--in medias res"],
)
def test_dashes_in_prose_stay(prose: str) -> None:
    found = one(prose, width=512)
    assert found.prompt == prose and found.width == 512


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a cat --width 256", "--w is one"),
        ("a cat --negative blurry", "--n is one"),
        ("a cat --stepps 256", "--steps is one"),
        ("a cat \u2014w 256", "with two hyphens"),
    ],
)
def test_near_misses_stay_and_are_told(text: str, meant: str) -> None:
    found, notices = read("x", text)
    assert found[1].prompt == text
    assert len(notices) == 1 and "sample prompt 2" in notices[0] and meant in notices[0]


def test_flag_without_effect_is_told_and_leaves_the_prompt() -> None:
    found, notices = read("a cat --ctrl_idx 1 --w 256 --p2 other text")
    assert found[0].prompt == "a cat" and found[0].width == 256
    assert [notice.split(": ")[1].split()[0] for notice in notices] == ["--ctrl_idx", "--p2"]


@pytest.mark.parametrize(
    ("text", "said"), [("a --w wide", "--w needs a whole number, got 'wide'"), ("a --l", "got 'nothing'")]
)
def test_flag_without_a_number_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"sample prompt 1: .*{said}"):
        one(text)


def test_placeholders() -> None:
    found = one("[trigger] by [name] --n no [trigger]", trigger="sks", name="my_lora")
    assert (found.prompt, found.negative) == ("sks by my_lora", "no sks")
    assert one("[trigger] cat", trigger=None).prompt == " cat"
    # The trigger is not added by itself, and not read for flags.
    assert one("a cat", trigger="sks").prompt == "a cat"
    assert one("[trigger]", trigger="a --w 64").prompt == "a --w 64"


def test_items_win_over_the_section_and_flags_over_items() -> None:
    samples = [
        {"prompt": "a", "seed": 9, "width": 256, "neg": None, "network_multiplier": "0.5"},
        {"prompt": "b --w 320", "width": 256, "guidance_scale": 1, "sample_steps": 4, "neg": "dog"},
        {"prompt": "c"},
    ]
    found, _ = read("unused", samples=samples, seed=42, neg="blurry", width=128, walk_seed=True)
    assert [p.prompt for p in found] == ["a", "b", "c"]
    assert [p.width for p in found] == [256, 320, 128]
    assert [p.negative for p in found] == ["blurry", "dog", "blurry"]
    # A seed of its own is the item's alone.
    assert [p.seed for p in found] == [9, 43, 44]
    assert found[0].network_multiplier == 0.5 and found[1].steps == 4 and found[1].guidance == 1


def test_missing_prompts_leave_the_others_their_place() -> None:
    found, _ = read("a", None, "c", seed=5, walk_seed=True)
    assert [(p.prompt, p.index, p.seed) for p in found] == [("a", 0, 5), ("c", 2, 7)]
    assert [p.prompt for p in read("")[0]] == [""]
    assert read_prompts(prompts=[]) == []


def test_video_and_reference_flags() -> None:
    found = one("a cat --frames 9 --fps 24 --ctrl_img my pictures/a.png --gr 0.7 --w 256", frame_stride=4)
    assert (found.num_frames, found.fps, found.images) == (9, 24, ("my pictures/a.png",))
    assert (found.prompt, found.guidance_rescale, found.width) == ("a cat", 0.7, 256)
    assert one("a cat --num_frames 9", frame_stride=4).is_video and not one("a cat", frame_stride=4).is_video


@pytest.mark.parametrize(
    ("item", "images"),
    [
        ({"ctrl_img": "a"}, ("a",)),
        ({"ctrl_img": "a", "ctrl_img_1": "b", "ctrl_img_2": "c"}, ("b", "c")),
        ({"ctrl_img_1": "a", "ctrl_img_3": "d", "ctrl_img_2": ""}, ("a", "d")),
        ({}, ()),
    ],
)
def test_pictures_of_an_item(item: dict[str, str], images: tuple[str, ...]) -> None:
    assert read(samples=[{"prompt": "a", **item}])[0][0].images == images


def test_frames_are_fitted_and_told() -> None:
    found, notices = read("a", "b --frames 9", num_frames=80, frame_stride=4)
    assert [prompt.num_frames for prompt in found] == [77, 9]
    assert notices == ["sample prompt 1: 80 frames become 77, a multiple of 4 and one more"]
    found, notices = read("a", num_frames=9)
    assert found[0].num_frames == 1 and "this model makes pictures" in notices[0]


def test_seeds() -> None:
    assert [p.seed for p in read("a", "b", seed=5)[0]] == [5, 5]
    rng = random.Random(1)
    drawn = [p.seed for p in read("a", "b", seed=-1, walk_seed=True, rng=rng)[0]]
    assert drawn[1] == drawn[0] + 1 and drawn[0] != -1
    assert drawn != [p.seed for p in read("a", "b", seed=-1, walk_seed=True, rng=rng)[0]]
    assert one("a --d -1", seed=3, rng=random.Random(2)).seed == random.Random(2).getrandbits(32)
    # Without a generator, every start draws another.
    assert one("a", seed=-1).seed != one("a", seed=-1).seed


def test_sizes_are_fitted_and_told() -> None:
    found, notices = read("a", "b --w 1024", width=1000, height=72, multiple=16)
    assert (found[0].width, found[0].height) == (992, 64)
    assert "sample prompt 1: 1000x72 becomes 992x64" in notices[0]
    assert found[1].width == 1024 and len(notices) == 2
    assert fit_size(8, 100, 8) == (64, 96)
    assert fit_size(8, 100, 48) == (96, 96)


def test_neg_false_is_no_negative() -> None:
    assert one("a", neg=False).negative == ""


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((48, 64), "48x64 becomes 64x64, sides are at least 64 here"),
        ((70, 48), "70x48 becomes 64x64, sides are at least 64 and multiples of 16 here"),
        ((130, 64), "130x64 becomes 128x64, sides are multiples of 16 here"),
    ],
)
def test_a_size_that_changes_says_by_which_rule(size: tuple[int, int], told: str) -> None:
    notices: list[str] = []
    Sides(16).fit(size, 1, "here", notices.append)
    assert notices == [f"here: {told}"]
