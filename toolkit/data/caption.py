"""The text that goes with a picture: trigger, comma tokens, dropout. Pure; randomness comes in as a stream."""

import random
import re
from dataclasses import dataclass, replace

PLACEHOLDER = "[trigger]"


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

    @property
    def is_fixed(self) -> bool:
        """The text is the same in every epoch, apart from caption dropout."""
        return self.token_dropout == 0 and not self.shuffle and not self.random_triggers


def caption_for(raw: str | None, rule: CaptionRule, rng: random.Random) -> str:
    """The text for one sample in one epoch; "" is the unconditional text of caption dropout.

    The trigger keeps its place: only caption dropout removes it. `[trigger]` in the caption stays where it is written.
    """
    # drawn first and always, so that the same stream drops the same captions whatever else the rule says
    if rng.random() < rule.dropout:
        return ""
    text = _mark_trigger((raw or "").strip() or rule.default_caption, rule.trigger)
    text = ", ".join(_vary(_split(text), rule, rng))
    if rule.trigger and not rule.is_reg and PLACEHOLDER not in text:
        text = f"{PLACEHOLDER} {text}".strip()
    text = ", ".join(part for part in (text, *_extra_triggers(rule, rng)) if part)
    return text.replace(PLACEHOLDER, rule.trigger)


def texts_for(raw: str | None, rule: CaptionRule) -> list[str]:
    """Every text that a fixed rule can give, to encode ahead."""
    assert rule.is_fixed, "a rule with random tokens has no list of texts"
    full = caption_for(raw, replace(rule, dropout=0.0), random.Random(0))
    return [full] if rule.dropout == 0 or not full else [full, ""]


def _mark_trigger(text: str, trigger: str) -> str:
    """Put the placeholder wherever the trigger is meant, so that a trigger with commas in it stays one piece."""
    text = text.replace("[name]", PLACEHOLDER)
    if not trigger:
        return text.replace(PLACEHOLDER, "")
    # a whole word, so that the trigger "cat" is not found in "category"
    return re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", lambda _: PLACEHOLDER, text)


def _split(text: str) -> list[str]:
    """Comma tokens, stripped, blank ones left out. The comma of a number (1,000) is not a separator."""
    parts = re.split(r"(?<!\d),|,(?!\d)", text)
    return [re.sub(r"[ \t]{2,}", " ", part.strip()) for part in parts if part.strip()]


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
