"""Captions: what the trigger, tokens and dropout do to a text."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from toolkit.data.caption import CaptionRule, caption_for, raw_caption, texts_for


@pytest.mark.parametrize(
    ("raw", "rule", "text"),
    [
        ("a dog", CaptionRule(), "a dog"),
        (None, CaptionRule(), ""),
        (None, CaptionRule(default_caption="a photo"), "a photo"),
        ("  \n", CaptionRule(default_caption="a photo"), "a photo"),
        ("a dog", CaptionRule(default_caption="a photo"), "a dog"),
        ("red, blue ,green", CaptionRule(), "red, blue, green"),
        ("red,, ,blue,", CaptionRule(), "red, blue"),
        ("1,000 lamps,at night", CaptionRule(), "1,000 lamps, at night"),
        ("two\nlines, here", CaptionRule(), "two\nlines, here"),
        ("a dog", CaptionRule(trigger="ohwx"), "ohwx a dog"),
        (None, CaptionRule(trigger="ohwx"), "ohwx"),
        ("photo of ohwx, day", CaptionRule(trigger="ohwx"), "photo of ohwx, day"),
        ("photo of [trigger], day", CaptionRule(trigger="ohwx"), "photo of ohwx, day"),
        ("photo of [name], day", CaptionRule(trigger="ohwx"), "photo of ohwx, day"),
        ("a [trigger] man, [trigger]", CaptionRule(), "a man"),
        ("a category", CaptionRule(trigger="cat"), "cat a category"),
        ("a dog", CaptionRule(trigger="ohwx", is_reg=True), "a dog"),
        ("a [trigger] dog", CaptionRule(trigger="ohwx", is_reg=True), "a ohwx dog"),
        (None, CaptionRule(trigger="ohwx", default_caption="[trigger] in snow"), "ohwx in snow"),
        ("a dog", CaptionRule(trigger=r"\1"), r"\1 a dog"),
        ("a dog", CaptionRule(dropout=1, trigger="ohwx"), ""),
        ("a, b, c", CaptionRule(token_dropout=1), ""),
        ("a, b, c", CaptionRule(token_dropout=1, trigger="ohwx"), "ohwx"),
        ("a, b, c, d", CaptionRule(token_dropout=1, keep_tokens=2), "a, b"),
        ("a, an ohwx, c", CaptionRule(token_dropout=1, trigger="ohwx"), "an ohwx"),
        ("a dog", CaptionRule(random_triggers=("x",)), "a dog, x"),
        (None, CaptionRule(random_triggers=("x",)), "x"),
    ],
)
def test_caption(raw: str | None, rule: CaptionRule, text: str) -> None:
    assert caption_for(raw, rule, random.Random(0)) == text


def test_shuffle_keeps_first_tokens_and_the_trigger_in_place() -> None:
    rule = CaptionRule(trigger="ohwx, man", shuffle=True, keep_tokens=1)
    texts = {caption_for("first, a, b, ohwx, man, c", rule, random.Random(seed)) for seed in range(200)}
    assert len(texts) == 6
    for text in texts:
        tokens = text.split(", ")
        assert tokens[0] == "first" and tokens[3:5] == ["ohwx", "man"]
        assert sorted(tokens) == sorted(["first", "a", "b", "ohwx", "man", "c"])


def test_shuffle_never_moves_a_trigger_put_in_front() -> None:
    rule = CaptionRule(trigger="ohwx", shuffle=True)
    texts = {caption_for("a, b, c", rule, random.Random(seed)) for seed in range(200)}
    assert len(texts) == 6 and all(text.startswith("ohwx ") for text in texts)


def test_dropout_rates() -> None:
    rule = CaptionRule(dropout=0.3, token_dropout=0.25)
    texts = [caption_for("a, b, c, d", rule, random.Random(seed)) for seed in range(4000)]
    assert texts.count("") / 4000 == pytest.approx(0.3, abs=0.03)
    kept = [len(text.split(", ")) for text in texts if text]
    assert sum(kept) / len(kept) / 4 == pytest.approx(0.75, abs=0.02)


def test_the_same_stream_drops_the_same_captions_under_any_rule() -> None:
    plain, rich = CaptionRule(dropout=0.5), CaptionRule(dropout=0.5, shuffle=True, trigger="x")
    for seed in range(50):
        dropped = [caption_for("a, b", rule, random.Random(seed)) == "" for rule in (plain, rich)]
        assert dropped[0] == dropped[1]


def test_random_triggers_up_to_a_maximum() -> None:
    rule = CaptionRule(random_triggers=("x", "y", "z"), random_triggers_max=2)
    texts = [caption_for("dog", rule, random.Random(seed)) for seed in range(600)]
    assert set(Counter(len(text.split(", ")) - 1 for text in texts)) == {0, 1, 2}
    assert all(len(set(text.split(", "))) == len(text.split(", ")) for text in texts)


@pytest.mark.parametrize(
    ("rule", "is_fixed"),
    [
        (CaptionRule(trigger="x", dropout=0.5, default_caption="y", keep_tokens=2), True),
        (CaptionRule(token_dropout=0.1), False),
        (CaptionRule(shuffle=True), False),
        (CaptionRule(random_triggers=("x",)), False),
    ],
)
def test_is_fixed(rule: CaptionRule, is_fixed: bool) -> None:
    assert rule.is_fixed is is_fixed


def test_texts_to_encode_ahead_are_all_that_come_up() -> None:
    rule = CaptionRule(trigger="ohwx", dropout=0.5)
    drawn = {caption_for("dog,cat", rule, random.Random(seed)) for seed in range(50)}
    assert drawn == set(texts_for("dog,cat", rule)) == {"ohwx dog, cat", ""}
    assert texts_for("dog", CaptionRule()) == ["dog"]


def test_replacements_come_before_the_trigger() -> None:
    rule = CaptionRule(trigger="kit", default_caption="a NAME", replacements=(("NAME", "[trigger]"), ("cat", "dog")))
    assert caption_for("NAME, a cat", rule, random.Random(0)) == "kit, a dog"
    assert caption_for(None, rule, random.Random(0)) == "a kit"
    # what comes in by them is the trigger as well, and what goes out is not
    into, out = (replace(rule, replacements=pair) for pair in ((("NAME", "kit"),), (("kit", "dog"),)))
    assert caption_for("a NAME", into, random.Random(0)) == "a kit"
    assert caption_for("a kit", out, random.Random(0)) == "kit a dog"


def test_the_default_caption_can_come_before_every_other() -> None:
    rule = CaptionRule(default_caption="a photo", is_prepended=True)
    assert caption_for("red, blue", rule, random.Random(0)) == "a photo, red, blue"
    assert caption_for("  ", rule, random.Random(0)) == "a photo"


def test_which_caption_of_a_picture_is_read() -> None:
    assert raw_caption("long", "short", CaptionRule()) == "long"
    assert raw_caption("long", "short", CaptionRule(is_short=True)) == "short"
    assert raw_caption("long", None, CaptionRule(is_short=True)) == "long"
    assert raw_caption("long", "short", CaptionRule(is_short=True, is_read=False)) is None
