"""What preservation and guidance need that is said in other sections, and what may surprise about them.

Every function yields (key path inside the process, what is to be said).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.config.plugins import NetworkPlugin
from toolkit.config.section import Remarked
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.train import TrainSection

COMPARING = ("diff_output_preservation", "blank_prompt_preservation", "inverted_mask_prior", "do_prior_divergence")
"""Keys of `train` that compare with the model without the network."""
CHANGED = "needs a `network`: without one, the model itself changes, and what it answered before is gone"
UNCHANGED = "needs a `network`: without one, an embedding changes nothing but what its own word gives"
OF_THE_UI = "person"
"""The class that ai-toolkit's UI writes into every config."""


def check_preservation(
    train: TrainSection,
    network: NetworkPlugin | None,
    datasets: Sequence[DatasetSection],
    trigger: str | None,
    trains_model: bool = True,
) -> Iterator[Remarked]:
    """Contradictions: nothing to compare with, no class, no trigger word; new words alone change nothing else."""
    if network is None:
        yield from _without_network(train, datasets, CHANGED if trains_model else UNCHANGED)
    if train.diff_output_preservation:
        yield from _check_class(train, datasets, trigger)
    if train.do_guidance_loss and train.bypass_guidance_embedding:
        text = "cannot be combined with bypass_guidance_embedding: guided targets belong to the guidance embedding"
        yield ("train", "do_guidance_loss"), text


def compare_preservation(train: TrainSection, datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """What has no effect, and what ai-toolkit does otherwise."""
    if train.is_guided and train.cfg_scales == (1.0, 1.0):
        key = "do_random_cfg" if train.do_random_cfg else "do_cfg"
        scale = "max_cfg_scale" if train.do_random_cfg else "cfg_scale"
        yield ("train", key), f"{scale} is 1, which is no guidance: each step takes two passes for nothing"
    if not train.is_guided:
        for key in ("cfg_scale", "cfg_rescale", "negative_prompt"):
            if getattr(train, key) not in ("", type(train).model_fields[key].default):
                yield ("train", key), "has no effect: do_cfg is off"
    if not train.diff_output_preservation:
        yield from _idle_classes(train, datasets)
    if train.do_differential_guidance and not train.do_guidance_loss:
        text = "acts by itself (in ai-toolkit only together with do_guidance_loss)"
        yield ("train", "do_differential_guidance"), text
    if train.inverted_mask_prior and not any(dataset.has_mask for dataset in datasets):
        yield ("train", "inverted_mask_prior"), "has no effect: no data set has a mask_path or alpha_mask"
    if train.do_blank_stabilization and not any(dataset.caption_dropout_rate for dataset in datasets):
        text = "acts on pictures without a caption alone: no data set has a caption_dropout_rate"
        yield ("train", "do_blank_stabilization"), text
    if datasets and all(dataset.prior_reg for dataset in datasets):
        text = "is set for all data sets: nothing is learned, the network stays where it is"
        yield ("datasets", 0, "prior_reg"), text


def _idle_classes(train: TrainSection, datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """Classes that nothing is kept of."""
    if train.diff_output_preservation_class not in ("", OF_THE_UI):
        yield ("train", "diff_output_preservation_class"), "has no effect: diff_output_preservation is off"
    for index, dataset in enumerate(datasets):
        if dataset.diff_output_preservation_class not in ("", OF_THE_UI):
            text = "has no effect: train.diff_output_preservation is off"
            yield ("datasets", index, "diff_output_preservation_class"), text


def _without_network(train: TrainSection, datasets: Sequence[DatasetSection], text: str) -> Iterator[Remarked]:
    """Keys that need a network beside the model."""
    yield from ((("train", key), text) for key in COMPARING if getattr(train, key))
    for index, dataset in enumerate(datasets):
        if dataset.prior_reg:
            yield ("datasets", index, "prior_reg"), text
        if dataset.network_weight != 1:
            yield ("datasets", index, "network_weight"), "needs a `network`: there is none whose strength it could set"


def _check_class(train: TrainSection, datasets: Sequence[DatasetSection], trigger: str | None) -> Iterator[Remarked]:
    named = [dataset for dataset in datasets if dataset.trigger_word or trigger]
    if not named:
        yield ("trigger_word",), "missing; train.diff_output_preservation puts the class in its place"
    if any(not (dataset.diff_output_preservation_class or train.diff_output_preservation_class) for dataset in named):
        text = "missing; say what the trigger word is a kind of, e.g. person"
        yield ("train", "diff_output_preservation_class"), text
    for index, dataset in enumerate(datasets):
        kind = dataset.diff_output_preservation_class or train.diff_output_preservation_class
        word = (dataset.trigger_word or trigger or "").strip()
        if kind and kind == word:
            key = ("datasets", index) if dataset.diff_output_preservation_class else ("train",)
            yield (*key, "diff_output_preservation_class"), f"is the trigger word itself, {word!r}"
            return
