"""How the weights of a run are used in diffusers: read from the family, its pipeline and the first sample prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config.embedded import ASSETS
from toolkit.context import DTYPES
from toolkit.models.family import Facts, Family
from toolkit.networks.network import Network
from toolkit.reporting.usage import Saved, Usage
from toolkit.sampling.prompts import SamplePrompt

if TYPE_CHECKING:
    from toolkit.trainer.config import TrainerPlugin

ENDLESS = 1 << 20
"""Tokenizers that know no limit give a huge one."""
PICTURES = ("image", "control_image", "mask_image")
"""What pipelines call the pictures that they are shown."""
LOADERS = {"lora": "load_lora_weights", "embedding": "load_textual_inversion"}
"""kind of a file -> the method that a pipeline needs for it; for the others it needs no method of its own."""


def usage_of(
    config: TrainerPlugin, family: Family, weights: Mapping[str, tuple[Path, Network]], prompts: Sequence[SamplePrompt]
) -> Usage | None:
    """How `weights`, by the suffix of their names, are used; None if no pipeline of diffusers takes them."""
    pipeline = pipeline_class(family.pipeline)
    saved = _saved(config, family.facts, weights)
    needed = [LOADERS.get(one.kind, "from_pretrained") for one in saved]
    if not saved or not all(hasattr(pipeline, method) for method in needed):
        return None
    location = family.parts.source.location
    if location.endswith(".safetensors") and not hasattr(pipeline, "from_single_file"):
        location = family.parts.source.root
    known = inspect.signature(pipeline.__call__).parameters
    asked = f"a picture of {config.trigger}" if config.trigger else "your prompt"
    return Usage(
        pipeline=family.pipeline,
        base_model=location,
        saved=saved,
        # without it, parts come in the precision of their files, which may differ from part to part
        dtype=str(DTYPES[config.train.dtype]).removeprefix("torch."),
        prompt=prompts[0].prompt if prompts else asked,
        options=_options(known, config, family, prompts),
        seed=prompts[0].seed if prompts and "generator" in known else None,
        fps=(prompts[0].fps if prompts else 16) if family.facts.frame_stride else 0,
        pictures=[name for name in PICTURES if name in known] if shows_pictures(family.facts, prompts) else [],
    )


def shareable(usage: Usage) -> Usage:
    """The same for readers of a model card, who do not have the folders of this machine."""
    place = Path(usage.base_model)
    if place.is_relative_to(ASSETS):
        return replace(usage, base_model=f"path/to/aitk/toolkit/assets/{place.name}")
    return replace(usage, base_model=f"path/to/{place.name}") if place.exists() else usage


def shows_pictures(facts: Facts, prompts: Sequence[SamplePrompt]) -> bool:
    """Whether the model is shown pictures: it needs them, or the samples have some."""
    return facts.needs_references or any(prompt.images for prompt in prompts)


def pipeline_tag(facts: Facts, prompts: Sequence[SamplePrompt]) -> str:
    """What the Hub calls the task of a model."""
    source = "image" if shows_pictures(facts, prompts) else "text"
    return f"{source}-to-{'video' if facts.frame_stride else 'image'}"


def pipeline_class(name: str) -> Any:
    """The class of a pipeline; None if diffusers does not have it."""
    import diffusers
    from transformers.utils import logging

    level = logging.get_verbosity()
    # importing a pipeline may warn of an image processor that nobody asked for
    logging.set_verbosity_error()
    try:
        return getattr(diffusers, name, None)
    finally:
        logging.set_verbosity(level)


def _saved(config: TrainerPlugin, facts: Facts, weights: Mapping[str, tuple[Path, Network]]) -> list[Saved]:
    """The files if diffusers takes all of them; DoRA and LoKr, and formats asked for, not every pipeline reads."""
    parts = {one.file: one.part for one in reversed(facts.trainables)}
    found = []
    for suffix, (path, network) in weights.items():
        kind = network.header.get("network_type")
        if kind == "lora" and config.save.key_format in ("auto", "diffusers"):
            found.append(Saved(path.name, "lora", parts.get(suffix, "transformer")))
        elif kind == "full" and path.is_dir():
            found += [Saved(path.name, "folder", part.name) for part in sorted(path.iterdir()) if part.is_dir()]
        elif kind == "full":
            found.append(Saved(path.name, "file", parts.get(suffix, "transformer")))
        elif kind == "embedding" and path.suffix == ".safetensors" and config.words:
            encoders = tuple((one.key, one.encoder, one.tokenizer) for one in facts.vocabularies)
            found.append(Saved(path.name, "embedding", word=config.words.trigger, encoders=encoders))
        else:
            return []
    return found


def _options(
    known: Mapping[str, inspect.Parameter], config: TrainerPlugin, family: Family, prompts: Sequence[SamplePrompt]
) -> dict[str, object]:
    """Arguments of the pipeline with which it sees what the training saw: sizes, steps, guidance, tokens."""
    facts = family.facts
    options: dict[str, object] = {}
    if prompts:
        first = prompts[0]
        options = {"width": first.width, "height": first.height, "num_inference_steps": first.steps}
        if facts.frame_stride:
            options["num_frames"] = first.num_frames
        # Qwen-Image and others have an input of the name guidance_scale that is not the scale of a second pass
        is_true = facts.guidance == "cfg" and "true_cfg_scale" in known
        options["true_cfg_scale" if is_true else "guidance_scale"] = first.guidance
        if facts.guidance == "cfg" and first.guidance > 1 and (first.negative or is_true):
            options["negative_prompt"] = first.negative
    elif sizes := config.resolutions():
        options = {"width": max(sizes), "height": max(sizes)}
    length = _tokens_read(family)
    if length and "max_sequence_length" in known and known["max_sequence_length"].default != length:
        options["max_sequence_length"] = length
    return {key: value for key, value in options.items() if key in known}


def _tokens_read(family: Family) -> int:
    """How many tokens of a prompt the model reads: that of its text encoders which reads most; 0: nobody says."""
    source = family.parts.source
    names = [name for name in family.needs["encode_prompt"] if name.startswith("tokenizer") and source.has(name)]
    lengths = [int(source.config(name).get("model_max_length") or ENDLESS) for name in names]
    length = min(max(lengths, default=ENDLESS), family.facts.text_length or ENDLESS)
    return length if length < ENDLESS else 0
