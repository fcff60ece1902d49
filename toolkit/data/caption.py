"""The text that goes with a picture: trigger, comma tokens, dropout. Pure; randomness comes in as a stream."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

PLACEHOLDER = "[trigger]"
SEPARATOR, BLANKS = re.compile(r"(?<!\d),|,(?!\d)"), re.compile(r"[ \t]{2,}")


@dataclass(frozen=True)
class CaptionRule:
    """How the raw caption of a data set becomes the text that is trained on."""

    trigger: str = ""
    """Replaces [trigger] and [name], and is put in front where the caption lacks it."""
    default_caption: str = ""
    """Stands in for a missing or blank caption."""
    dropout: float = 0.0
    """Share of samples trained on the empty text."""
    token_dropout: float = 0.0
    """Share of comma tokens left out."""
    keep_tokens: int = 0
    """The first tokens that are neither dropped nor shuffled."""
    shuffle: bool = False
    random_triggers: tuple[str, ...] = ()
    """Words of which some are appended at random."""
    random_triggers_max: int = 1
    is_reg: bool = False
    """Regularization pictures get no trigger that they do not ask for."""
    replacements: tuple[tuple[str, str], ...] = ()
    """Text in captions, and what stands in its place."""
    is_short: bool = False
    """The short caption is taken where there is one."""
    is_prepended: bool = False
    """The default caption comes before every other."""
    is_read: bool = True
    """Off: captions count as missing."""

    @property
    def is_fixed(self) -> bool:
        """The text is the same in every epoch, apart from caption dropout."""
        return self.token_dropout == 0 and not self.shuffle and not self.random_triggers


def raw_caption(caption: str | None, short_caption: str | None, rule: CaptionRule) -> str | None:
    """Which of the captions of a picture is trained on."""
    if not rule.is_read:
        return None
    return (short_caption or caption) if rule.is_short else caption


def caption_for(raw: str | None, rule: CaptionRule, rng: random.Random) -> str:
    """The text for one sample in one epoch; "" is the unconditional text of caption dropout.

    The trigger keeps its place: only caption dropout removes it. `[trigger]` in the caption stays where it is written.
    """
    # drawn first and always, so that the same stream drops the same captions whatever else the rule says
    if rng.random() < rule.dropout:
        return ""
    tokens = _vary(_tokens(raw, rule), rule, rng)
    return _joined(tokens, rule, _extra_triggers(rule, rng))


def texts_for(raw: str | None, rule: CaptionRule) -> list[str]:
    """Every text that a fixed rule can give, to encode ahead."""
    assert rule.is_fixed, "a rule with random tokens has no list of texts"
    full = _joined(_tokens(raw, rule), rule)
    return [full] if rule.dropout == 0 or not full else [full, ""]


def _tokens(raw: str | None, rule: CaptionRule) -> list[str]:
    """The comma tokens of a caption, with the placeholder wherever the trigger is meant."""
    text = (raw or "").strip() or rule.default_caption
    if rule.is_prepended and text != rule.default_caption:
        text = f"{rule.default_caption}, {text}"
    for old, new in rule.replacements:
        text = text.replace(old, new)
    return split_tokens(_mark_trigger(text, rule.trigger))


def _joined(tokens: Sequence[str], rule: CaptionRule, extra: Sequence[str] = ()) -> str:
    """The text of tokens with the trigger, and what else comes behind them."""
    text = ", ".join(tokens)
    if rule.trigger and not rule.is_reg and PLACEHOLDER not in text:
        text = f"{PLACEHOLDER} {text}".strip()
    text = ", ".join(part for part in (text, *extra) if part)
    return text.replace(PLACEHOLDER, rule.trigger)


def _mark_trigger(text: str, trigger: str) -> str:
    """Put the placeholder wherever the trigger is meant, so that a trigger with commas in it stays one piece."""
    text = text.replace("[name]", PLACEHOLDER)
    if not trigger:
        return text.replace(PLACEHOLDER, "")
    # a whole word, so that the trigger "cat" is not found in "category"
    return _word(trigger).sub(lambda _: PLACEHOLDER, text)


@cache
def _word(trigger: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(trigger)}(?!\w)")


def split_tokens(text: str) -> list[str]:
    """Comma tokens, stripped, blank ones left out. The comma of a number (1,000) is not a separator."""
    parts = (part.strip() for part in SEPARATOR.split(text))
    return [BLANKS.sub(" ", part) for part in parts if part]


def _vary(tokens: list[str], rule: CaptionRule, rng: random.Random) -> list[str]:
    """Token dropout and shuffle among the tokens that are free: neither kept ones nor those that hold the trigger."""
    if rule.token_dropout == 0 and not rule.shuffle:
        return tokens
    held = [index < rule.keep_tokens or PLACEHOLDER in token for index, token in enumerate(tokens)]
    kept = [
        (token, is_held)
        for token, is_held in zip(tokens, held, strict=True)
        if is_held or rng.random() >= rule.token_dropout
    ]
    if not rule.shuffle:
        return [token for token, _ in kept]
    free = [token for token, is_held in kept if not is_held]
    rng.shuffle(free)
    return [token if is_held else free.pop() for token, is_held in kept]


def _extra_triggers(rule: CaptionRule, rng: random.Random) -> list[str]:
    """One random trigger, or any number up to the maximum if that is above one."""
    if not rule.random_triggers:
        return []
    count = rng.randint(0, rule.random_triggers_max) if rule.random_triggers_max > 1 else 1
    return rng.sample(rule.random_triggers, min(count, len(rule.random_triggers)))
