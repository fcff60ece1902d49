"""The sections of the slider processes: what slides, what stays, and the pairs of pictures of `slider.datasets`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from toolkit.config.section import Remarked, Section, idle, planned, works

Side = Annotated[int, Field(ge=16)]
UNUSED = "ai-toolkit does not read it either"
ADAPTER = "a slider here is held in place by the texts alone; remove it"


class SliderTarget(Section):
    """`slider.targets[]`: what slides. A `{}` in a text is where a line of `slider.prompt_file` goes."""

    target_class: str = works("", "What is changed, such as `person`; empty: everything.")
    positive: str = works("", "More of this at positive strength; empty: `target_class` itself.")
    negative: str = works("", "More of this at negative strength; empty: `target_class` itself.")
    multiplier: float = works(1.0, "Strength of the network at which the whole step is made; negative: turned.")
    weight: float = works(1.0, "Factor of its loss.", ge=0)
    shuffle: bool = works(False, "Train orders of the comma-separated parts of the texts, at most 8.")

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if not self.multiplier:
            yield ("multiplier",), "must not be 0: the network would be off"
        if not (self.positive or self.negative):
            yield ("positive",), "positive and negative are both empty: there is no direction"
        elif self.positive == self.negative:
            yield ("negative",), "is the same as positive: there is no direction"


class SliderAnchor(Section):
    """`slider.anchors[]`: a prompt whose pictures stay as they are."""

    prompt: str = works(..., "The prompt.")
    neg_prompt: str = idle("", "anchors are compared without guidance, which is where it would count")
    multiplier: float = works(1.0, "Strength of the network at which the prompt is held; less holds less.")


class SlidingTexts(Section):
    """What `slider` has where texts slide: of `type: slider` and of `ultimate_slider_trainer`."""

    targets: list[SliderTarget] = works(..., "What slides in texts; the steps take turns.", min_length=1)
    anchors: list[SliderAnchor] = works([], "Prompts that stay as they are.")
    guidance_strength: float = works(
        1.0, "aitk only. How far a step goes: so many times from the negative to the positive prompt.", gt=0
    )
    prompt_file: str | list[str] | None = works(
        None, "File with one prompt per line, or the prompts: each goes with the texts of all targets."
    )
    batch_full_slide: bool = works(True, "Both directions in every step; off: they take turns.")
    prompt_tensors: str | None = idle(None, "encoded prompts are always kept in the cache of the run")
    low_ram: bool = idle(False, "the directions are always computed one after another")
    use_adapter: str | None = planned(None, "Adapter that holds the layout.", why=ADAPTER)
    adapter_img_dir: str | None = planned(None, "Pictures for the adapter.", why=ADAPTER)

    @property
    def lines(self) -> list[str]:
        """The prompts of `prompt_file`."""
        return read_lines(self.prompt_file)

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
        yield from check_places(self.targets, self.prompt_file)


class TextSliderSection(SlidingTexts):
    """`slider` of `type: slider`."""

    resolutions: list[tuple[Side, Side]] = works([(512, 512)], "Sizes [width, height] of the latents.", min_length=1)
    num_latents: int = works(64, "aitk only. Latents that the model makes to train on.", ge=1)
    latent_steps: int | None = works(None, "aitk only. Sampling steps for those; default: `sample.sample_steps`.", ge=1)


class ConceptSliderSection(Section):
    """`slider` of `type: concept_slider`."""

    guidance_strength: float = works(
        3.0, "How far a step goes: so many times from the negative to the positive prompt.", gt=0
    )
    anchor_strength: float = works(1.0, "Factor of the anchor's loss; the slide itself counts 2.", ge=0)
    positive_prompt: str = works("", "More of this at positive strength.")
    negative_prompt: str = works("", "More of this at negative strength.")
    target_class: str = works("", "What is changed; takes the place of the captions.")
    anchor_class: str | None = works(None, "A prompt whose pictures stay as they are.")

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if self.positive_prompt == self.negative_prompt:
            yield ("negative_prompt",), "is the same as positive_prompt: there is no direction"


class PairFolders(Section):
    """`slider.datasets[]`: pictures of both ends of the slider."""

    pair_folder: str | None = works(None, "Pictures that show both ends: the left half negative, the right positive.")
    pos_folder: str | None = works(None, "Pictures of the positive end.")
    neg_folder: str | None = works(None, "Those of the negative end, with the same names.")
    network_weight: float = works(1.0, "Strength of the network at both ends; its sign does not count.")
    pos_weight: float | None = works(None, "Strength at the positive end; default: `network_weight`.")
    neg_weight: float | None = works(None, "Strength at the negative end, without a sign; default: `network_weight`.")
    target_class: str = works("", "Caption of pictures without one.")
    size: Side = works(512, "Pictures are scaled down to about size x size pixels.")

    @property
    def strengths(self) -> tuple[float, float]:
        """Those of the positive and of the negative end, both above 0 in their own direction."""
        both = abs(self.network_weight)
        positive = both if self.pos_weight is None else abs(self.pos_weight)
        return positive, both if self.neg_weight is None else abs(self.neg_weight)

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if self.pair_folder and (self.pos_folder or self.neg_folder):
            yield ("pair_folder",), "cannot be combined with pos_folder and neg_folder; use one of the two ways"
        elif not self.pair_folder and not (self.pos_folder and self.neg_folder):
            key = "pos_folder" if self.neg_folder else "neg_folder" if self.pos_folder else "pair_folder"
            yield (key,), "missing: name pos_folder and neg_folder, or pair_folder"
        if not all(self.strengths):
            yield ("network_weight",), "no strength may be 0: the network would be off"


class PairSliderSection(Section):
    """`slider` of `type: image_reference_slider_trainer`."""

    datasets: list[PairFolders] = works(..., "Pairs of pictures.", min_length=1)
    weight_jitter: float = works(
        0.0, "Both strengths are shifted by up to this, and the loss counts the less the farther.", ge=0
    )
    additional_losses: list[str] = idle([], UNUSED)


class UltimateSliderSection(SlidingTexts):
    """`slider` of `type: ultimate_slider_trainer`."""

    datasets: list[PairFolders] = works(..., "Pairs of pictures.", min_length=1)
    img_loss_weight: float = works(1.0, "Factor of the loss on the pictures.", ge=0)
    cfg_loss_weight: float = works(1.0, "Factor of the loss on the texts.", ge=0)
    weight_jitter: float = works(0.0, "Both strengths on the pictures are shifted by up to this.", ge=0)
    resolutions: list[tuple[Side, Side]] = idle([(512, 512)], "the pictures of datasets have their own sizes")
    additional_losses: list[str] = idle([], UNUSED)

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
        if not (self.img_loss_weight or self.cfg_loss_weight):
            yield ("img_loss_weight",), "nothing is trained: this and cfg_loss_weight are 0"


class Replacement(Section):
    """`replacements[]`."""

    concept: str = works(..., "What is replaced: the words that call it.", min_length=1)
    replacement: str = works("", "What these words are to give instead; empty: nothing in particular.")

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if self.concept == self.replacement:
            yield ("replacement",), "is the same as concept: nothing would change"


def read_lines(given: str | list[str] | None) -> list[str]:
    """The prompts of a file, or those given, without empty ones. ValueError if the file cannot be read."""
    if not isinstance(given, str):
        return [line.strip() for line in given or [] if line.strip()]
    try:
        text = Path(given).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"slider.prompt_file: {given} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def check_places(targets: Sequence[SliderTarget], lines: str | list[str] | None) -> Iterator[Remarked]:
    """Places for a line where there are no lines."""
    for index, target in enumerate(targets):
        if not lines and "{}" in target.target_class + target.positive + target.negative:
            yield ("targets", index, "target_class"), "{} stands for a line of prompt_file, which is not set"
