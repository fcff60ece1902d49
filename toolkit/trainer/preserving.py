"""The keys of `train` about other predictions of the model, as functions of an objective and the texts they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from toolkit.data.caption import PLACEHOLDER, raw_caption
from toolkit.data.items import Items
from toolkit.training.companions import Companion, has_word, in_class, same_for_all
from toolkit.training.guidance import GuidedGuess, GuidedTarget, extrapolated
from toolkit.training.objective import Beside, Objective, Term
from toolkit.training.preservation import Base, base_target, blanks_cleared, diverge, stay, stay_outside

if TYPE_CHECKING:
    from toolkit.config.sections.train import TrainSection

NUM_MIXTURES = 64
"""So many negative prompts are made of several, to be encoded ahead."""


def kind_companion(options: TrainSection) -> Companion:
    """Captions with the class in the place of the trigger word."""
    return in_class("class", options.diff_output_preservation_class)


def blank_companion() -> Companion:
    """The empty text."""
    return same_for_all("blank", ("",))


def unconditional_companion(options: TrainSection) -> Companion:
    """The text that guided targets are pushed away from."""
    return same_for_all("unconditional", (options.unconditional_prompt,))


def negative_companion(options: TrainSection) -> Companion:
    """The negative prompts of guided predictions."""
    return same_for_all("negative", negative_texts(options.negative_prompt, options.max_negative_prompts))


def make_companions(options: TrainSection) -> tuple[Companion, ...]:
    """The texts that the keys ask for beside the captions."""
    found = []
    if options.diff_output_preservation:
        found.append(kind_companion(options))
    if options.blank_prompt_preservation:
        found.append(blank_companion())
    if options.do_guidance_loss:
        found.append(unconditional_companion(options))
    if options.is_guided:
        found.append(negative_companion(options))
    return tuple(found)


def negative_texts(prompt: str | None, most: int) -> Sequence[str]:
    """The negative prompts: the text itself, or lines of the file that it names, up to `most` of them joined.

    Raises ValueError for a file without lines.
    """
    lines = [prompt or ""]
    path = Path(prompt).expanduser() if prompt else None
    if path is not None and path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"train.negative_prompt: {path} has no lines")
    if most == 1 or len(lines) == 1:
        return tuple(dict.fromkeys(lines))
    rng = Random("negative prompts")
    mixtures = (rng.sample(lines, min(rng.randint(1, most), len(lines))) for _ in range(NUM_MIXTURES))
    return tuple(dict.fromkeys(", ".join(mixture) for mixture in mixtures))


def with_guidance(objective: Objective, options: TrainSection) -> Objective:
    """The objective with the keys about guidance."""
    guess = objective.guess
    if options.do_blank_stabilization:
        objective = replace(objective, prepare=blanks_cleared(objective.prepare))
    if options.do_guidance_loss:
        target = GuidedTarget(
            objective.target,
            guess,
            unconditional_companion(options),
            options.guidance_scales,
            options.guidance_loss_schedule,
            options.do_guidance_loss_cfg_zero,
        )
        objective = replace(objective, target=target)
    if options.is_guided:
        guided = GuidedGuess(guess, negative_companion(options), options.cfg_scales, options.cfg_rescale or 0.0)
        objective = replace(objective, guess=guided)
    if options.do_differential_guidance:
        distance = extrapolated(objective.distance, options.differential_guidance_scale)
        objective = replace(objective, distance=distance)
    return objective


def with_preservation(objective: Objective, options: TrainSection, base: Base) -> Objective:
    """The objective with the keys that compare with the model as it was."""
    terms: list[Term] = []
    besides: list[Beside] = []
    if options.diff_output_preservation:
        terms.append(stay(base, kind_companion(options), options.diff_output_preservation_multiplier))
    if options.blank_prompt_preservation:
        terms.append(stay(base, blank_companion(), options.blank_prompt_preservation_multiplier))
    if options.inverted_mask_prior:
        besides.append(stay_outside(base, objective.guess, options.inverted_mask_prior_multiplier))
    if options.do_prior_divergence:
        besides.append(diverge(base, objective.guess))
    return replace(
        objective,
        target=base_target(base, objective.target, objective.guess),
        beside=(*objective.beside, *besides),
        terms=(*objective.terms, *terms),
    )


def untriggered(data: Items) -> Iterator[str]:
    """How many captions lack the trigger word, in front of which it is put: the class is put there too."""
    for items in data.datasets:
        rule = items.treatment.caption
        if not rule.trigger or rule.is_reg or not rule.is_read:
            continue
        captions = [raw_caption(*pair, rule) or rule.default_caption for pair in items.records.captions(None)]
        # a picture without a caption gets the trigger word alone, which is in order
        lacking = [text for text in captions if text and not (has_word(text, rule.trigger) or PLACEHOLDER in text)]
        if lacking:
            yield (
                f"{len(lacking)} of {len(captions)} captions lack the trigger word {rule.trigger!r}, which is put "
                f"in front of them, as the class is for diff_output_preservation (first: {lacking[0]!r})"
            )
