"""Sections of a training config that do not fit together, and values that ai-toolkit reads otherwise.

Every function yields (key path inside the process, what is to be said).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.config.objective_checks import compare_objective
from toolkit.config.plugins import ModelPlugin, NetworkPlugin
from toolkit.config.section import Remarked
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.embedding import EmbeddingSection
from toolkit.config.sections.sample import SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.config.upstream_names import SCALED_BY_ALPHA


def check_datasets(datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """Contradictions between data sets."""
    cached = [dataset.cache_text_embeddings for dataset in datasets]
    if any(cached) and not all(cached):
        text = "all data sets or none can cache text embeddings; set train.cache_text_embeddings"
        yield ("datasets", cached.index(False), "cache_text_embeddings"), text


def check_consumers(datasets: Sequence[DatasetSection], takes_pairs: bool) -> Iterator[Remarked]:
    """Pictures that the data engine reads, but that a trainer has no use for."""
    uses = {
        "clip_image_path": "has no vision adapter",
        "clip_image_from_same_folder": "has no vision adapter",
    }
    if not takes_pairs:
        uses["unconditional_path"] = "does not train on pairs of pictures"
    for index, dataset in enumerate(datasets):
        for key, text in uses.items():
            if getattr(dataset, key):
                yield ("datasets", index, key), f"this trainer {text}, so it would have no effect; remove it"


def check_texts(datasets: Sequence[DatasetSection], train: TrainSection) -> Iterator[Remarked]:
    """Contradictions between cached captions and trained text encoders."""
    for index, dataset in enumerate(datasets):
        if train.train_text_encoder and dataset.cache_text_embeddings and not train.cache_text_embeddings:
            text = "cannot be combined with train.train_text_encoder, which encodes captions at every step"
            yield ("datasets", index, "cache_text_embeddings"), text


def check_model(model: ModelPlugin, network: NetworkPlugin | None) -> Iterator[Remarked]:
    """Contradictions between what is loaded and what is trained."""
    if network is None and model.quantize:
        yield ("model", "quantize"), "quantized weights cannot be trained; add a `network`, or set it to false"
    if network is None and model.offloads_layers:
        key = "layer_offloading" if model.layer_offloading else "auto_memory"
        yield ("model", key), "layers that are trained cannot be offloaded; add a `network`, or set it to false"


def check_trained(train: TrainSection) -> Iterator[Remarked]:
    """Whether any part of the model is trained."""
    if not train.train_unet and not train.train_text_encoder:
        yield ("train", "train_unet"), "nothing is trained: this and train_text_encoder are off"


def check_merging(train: TrainSection, model: ModelPlugin, network: NetworkPlugin | None) -> Iterator[Remarked]:
    """Whether there is something to merge at each save, and one checkpoint to merge it into."""
    if not train.merge_network_on_save:
        return
    if network is None:
        yield ("train", "merge_network_on_save"), "there is no network to merge; a full fine-tune is a whole model"
    for key in ("unet_path", "te_name_or_path"):
        if getattr(model, key):
            text = f"cannot be combined with model.{key}: the network is merged into model.name_or_path"
            yield ("train", "merge_network_on_save"), text


def check_words(
    words: EmbeddingSection, trigger: str | None, datasets: Sequence[DatasetSection], train: TrainSection
) -> Iterator[Remarked]:
    """Contradictions between an embedding and how captions are read."""
    if trigger not in (None, words.trigger):
        yield ("trigger_word",), f"must be embedding.trigger, {words.trigger!r}; leave it out"
    text = "cannot be combined with an embedding, which encodes captions at every step"
    for key in ("cache_text_embeddings", "unload_text_encoder"):
        if getattr(train, key):
            yield ("train", key), text
    for index, dataset in enumerate(datasets):
        if dataset.cache_text_embeddings and not train.cache_text_embeddings:
            yield ("datasets", index, "cache_text_embeddings"), text
        if dataset.trigger_word not in (None, trigger, words.trigger):
            wrong = f"must be embedding.trigger, {words.trigger!r}, or these captions lack the word; leave it out"
            yield ("datasets", index, "trigger_word"), wrong


def compare_train(train: TrainSection, model: ModelPlugin) -> Iterator[Remarked]:
    """What ai-toolkit does otherwise with `train`."""
    if train.gradient_accumulation_steps > 1:
        text = f"accumulates {train.gradient_accumulation_steps} batches per update (ai-toolkit uses only the last)"
        yield ("train", "gradient_accumulation_steps"), text
    if train.gradient_accumulation > 1:
        text = "gradients are averaged, as in one larger batch (ai-toolkit adds them up)"
        yield ("train", "gradient_accumulation"), text
    if train.merge_network_on_save:
        text = "the merged model is written beside the network, which is trained on (ai-toolkit starts it anew)"
        yield ("train", "merge_network_on_save"), text
    if train.lr_scheduler == "linear":
        yield ("train", "lr_scheduler"), "goes down to 0 over the run (ai-toolkit warms up from a third)"
    if train.lr_scheduler == "cosine_with_restarts":
        yield ("train", "lr_scheduler"), "restarts (ai-toolkit goes down once)"
    if train.lr_scheduler == "constant_with_warmup" and "num_warmup_steps" not in train.lr_scheduler_params:
        yield ("train", "lr_scheduler"), "warms up over a tenth of the run (ai-toolkit over 1000 steps)"
    if train.ema_config.use_ema:
        yield ("train", "ema_config"), "the average is kept when a run resumes (ai-toolkit starts it anew)"
    own = ("flowmatch",) if model.flow else ("ddpm",)
    if train.noise_scheduler not in (None, *own):
        text = f"has no effect: {model.arch} was trained by {trained_by(model)}, which decides"
        yield ("train", "noise_scheduler"), text
    if train.timestep_type is not None and not model.flow:
        text = "decides which times are trained (ai-toolkit trains all times alike with ddpm); leave it out for that"
        if train.timestep_type != "linear":
            yield ("train", "timestep_type"), text
    yield from compare_objective(train, model.flow)
    yield from _compare_rates(train)


def trained_by(model: ModelPlugin) -> str:
    """How the family's checkpoints were trained, in words."""
    return "flow matching" if model.flow else "denoising diffusion"


def _compare_rates(train: TrainSection) -> Iterator[Remarked]:
    """Learning rates of parts of the model."""
    trained = {"unet_lr": train.train_unet, "text_encoder_lr": train.train_text_encoder}
    switches = {"unet_lr": "train_unet", "text_encoder_lr": "train_text_encoder"}
    for key, is_trained in trained.items():
        rate = getattr(train, key)
        if rate is not None and not is_trained:
            yield ("train", key), f"has no effect: {switches[key]} is off"
        elif rate is not None and rate != train.lr:
            yield ("train", key), f"is used, {rate:g} (ai-toolkit uses lr, {train.lr:g})"


def compare_model(model: ModelPlugin) -> Iterator[Remarked]:
    """What may surprise about `model`."""
    for name, adapter in model.training_adapters.items():
        if name in model.name_or_path.lower() and model.assistant_lora_path is None:
            text = f"is distilled to few steps, which training undoes; `assistant_lora_path: {adapter}` prevents that"
            yield ("model", "name_or_path"), text


def compare_network(network: NetworkPlugin, model: ModelPlugin) -> Iterator[Remarked]:
    """What ai-toolkit does otherwise with `network`: alpha, 1 by default, scales only what is in SCALED_BY_ALPHA."""
    rank, alpha = network.effective_rank, network.effective_alpha
    if not network.has_rank:
        return
    is_scaled = model.arch in SCALED_BY_ALPHA or network.type in SCALED_BY_ALPHA
    if not is_scaled and alpha != rank:
        text = f"scales the update by {alpha:g}/{rank} (ai-toolkit ignores it on transformer models)"
        yield ("network", "linear_alpha"), text
    if is_scaled and network.linear_alpha is None and network.alpha is None and rank > 1:
        text = f"not set, so the update is not scaled (ai-toolkit scales it by 1/{rank}; `linear_alpha: 1` does that)"
        yield ("network", "linear_alpha"), text


def compare_datasets(datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """What ai-toolkit does otherwise with `datasets`, and what only the first one decides."""
    if datasets and all(dataset.is_reg for dataset in datasets):
        text = "has no effect: there is no data set without it, so nothing but regularization pictures is trained"
        yield ("datasets", 0, "is_reg"), text
    for index, dataset in enumerate(datasets):
        path = ("datasets", index)
        if dataset.keep_tokens and dataset.shuffle_tokens:
            yield (*path, "keep_tokens"), "these parts are not shuffled either (ai-toolkit shuffles them)"
        if dataset.invert_mask and not dataset.has_mask:
            yield (*path, "invert_mask"), "has no effect: there is no mask_path and no alpha_mask"
        if dataset.shuffle_augmentations and not (dataset.augments or dataset.augmentations):
            yield (*path, "shuffle_augmentations"), "has no effect: there are no augmentations"
        if dataset.square_crop and not dataset.buckets:
            yield (*path, "square_crop"), "has no effect: without buckets all pictures are squares"
        for key in ("num_workers", "prefetch_factor"):
            value, first = getattr(dataset, key), getattr(datasets[0], key)
            if key in dataset.model_fields_set and value != first:
                yield (*path, key), f"has no effect: the first data set decides for all ({first})"


def compare_sample(
    section: str, sample: SampleSection, train: TrainSection, model: ModelPlugin, trigger: str | None
) -> Iterator[Remarked]:
    """What may surprise about `sample`."""
    if sample.prompts and sample.samples:
        yield (section, "prompts"), "has no effect, because samples is set"
    if not has_sampler(sample.sampler, model):
        text = f"has no effect: {model.arch} was trained by {trained_by(model)}, so its own sampler is used"
        yield (section, "sampler"), text
    if section == "sample" and sample.sample_every > train.steps and "sample_every" in sample.model_fields_set:
        yield (section, "sample_every"), f"more than train.steps ({train.steps}): samples only before and after"
    texts = [item.prompt for item in sample.samples] or sample.prompts
    if not trigger and any("[trigger]" in text for text in texts):
        yield (section, "samples" if sample.samples else "prompts"), "[trigger] stands for nothing: no trigger_word"


def has_sampler(name: str | None, model: ModelPlugin) -> bool:
    """Whether a sampler of that name fits; toolkit/sampling/schedulers.py has the same names with their classes."""
    if model.flow:
        return name in (None, "flowmatch", "euler", "unipc", "dpmsolver++")
    return name not in ("flowmatch", "mean_flow")


def compare_save(save: SaveSection, train: TrainSection) -> Iterator[Remarked]:
    """What may surprise about `save`."""
    if save.save_every > train.steps and "save_every" in save.model_fields_set:
        yield ("save", "save_every"), f"more than train.steps ({train.steps}): saved only at the end"
