"""What to say about a key that its section does not have."""

from __future__ import annotations

from typing import Any

from toolkit.config.errors import KeyPath, join
from toolkit.config.names import nearest
from toolkit.config.section import Section, state_of
from toolkit.config.spelling import pattern_of
from toolkit.config.walk import homes, section_at

_OFFLOADING = ("device_map", "max_memory", "model_cpu_offload", "offload_to_cpu")
MEANT = {
    **{f"model.{key}": "see model.layer_offloading and model.low_vram" for key in _OFFLOADING},
    "model.local_files_only": "set HF_HUB_OFFLINE=1 in the environment instead",
    "train.epochs": "there are no epochs; set train.steps",
    "train.max_train_epochs": "there are no epochs; set train.steps",
    "train.log_with": "set log_dir for TensorBoard, or logging.use_wandb",
    "train.use_8bit_adam": "set `train.optimizer: adamw8bit`",
}
"""What to say about keys, relative to their process, for which there is no other key."""

# of kohya's scripts, musubi-tuner, OneTrainer, diffusion-pipe, SimpleTuner, and what users write
_FOREIGN = {
    "training_folder": "output_dir",
    "name": "output_name",
    "log_dir": "logging_dir",
    "training_seed": "seed",
    "model.arch": "model_family model_type",
    "model.name_or_path": "pretrained_model_name_or_path base_model_name diffusers_path ckpt_path",
    "model.vae_path": "vae",
    "model.qtype": "base_model_precision",
    "network.type": "network_module",
    "network.linear": "network_dim lora_rank dim",
    "network.linear_alpha": "network_alpha lora_alpha",
    "network.conv": "conv_dim",
    "network.dropout": "network_dropout",
    "network.network_kwargs": "network_args",
    "network.pretrained_lora_path": "network_weights",
    "train.steps": "max_train_steps",
    "train.batch_size": "train_batch_size micro_batch_size_per_gpu",
    "train.lr": "learning_rate",
    "train.lr_scheduler": "learning_rate_scheduler lr_scheduler_type",
    "train.lr_scheduler_params": "lr_scheduler_args",
    "train.optimizer": "optimizer_type",
    "train.optimizer_params": "optimizer_args",
    "train.dtype": "mixed_precision",
    "train.attention_backend": "attention_mode",
    "train.xformers": "enable_xformers",
    "train.validation_config": "validation",
    "train.timestep_type": "timestep_sampling timestep_distribution timestep_sample_method",
    "datasets[].folder_path": "image_dir train_data_dir image_directory video_directory instance_data_dir",
    "datasets[].control_path": "control_directory conditioning_data_dir",
    "datasets[].caption_ext": "caption_extension",
    "datasets[].shuffle_tokens": "shuffle_caption",
    "datasets[].token_dropout_rate": "caption_tag_dropout_rate",
    "datasets[].buckets": "enable_bucket enable_ar_bucket aspect_ratio_bucketing",
    "save.dtype": "save_precision output_dtype",
    "save.save_every": "save_every_n_steps checkpointing_steps",
    "save.max_step_saves_to_keep": "checkpoints_total_limit",
    "sample.sample_every": "sample_every_n_steps validation_steps",
    "sample.prompts": "sample_prompts validation_prompt",
    "sample.sampler": "sample_sampler",
}
OURS = {theirs: ours for ours, names in _FOREIGN.items() for theirs in names.split()}
"""Keys that have another name here, wherever they are written, and the key here."""


def explain_unknown(plugin: type[Section], data: Any, path: KeyPath) -> str:
    """One sentence about the unknown key at `path`: where it belongs, or which key is near."""
    key = str(path[-1])
    if said := MEANT.get(pattern_of(path)):
        return f"unknown key; {said}"
    ours = OURS.get(key, "")
    if ours in _places(plugin, data, ours.rpartition(".")[2]):
        return f"unknown key; here it is {ours}"
    own = section_at(plugin, data, path[:-1])
    near = _near(key, own) if own is not None else None
    places = [place for place in _places(plugin, data, key) if place != join(path)]
    hints = []
    if places:
        hints.append(f"belongs to {' or '.join(places[:2])}")
    elif not near:
        near = _near_elsewhere(plugin, data, key)
    if near:
        hints.append(f"did you mean '{near}'?")
    return "; ".join(["unknown key", *hints])


def _places(plugin: type[Section], data: Any, key: str) -> list[str]:
    """The keys of this name in other sections, those that do something first."""
    found = {}
    for place, section in homes(plugin, data):
        field = section.model_fields.get(key)
        if field is not None:
            found[f"{place}.{key}".lstrip(".")] = state_of(field) != "works"
    # a key of the process itself is at home nowhere else
    return sorted(found, key=lambda place: (found[place], place.count("."), place.startswith("first_sample")))


def _near_elsewhere(plugin: type[Section], data: Any, key: str) -> str | None:
    """The key of another section whose name is nearly the same."""
    keys = {name: place for place, section in homes(plugin, data) for name in section.model_fields}
    found = nearest(key, keys, 0.8)
    return f"{keys[found]}.{found}".lstrip(".") if found else None


def _near(key: str, section: type[Section]) -> str | None:
    """The key of the same section that was probably meant: nearly the same, or with one more word."""
    parts = [name for name in section.model_fields if name.endswith(f"_{key}") or name.startswith(f"{key}_")]
    return nearest(key, section.model_fields, 0.72) or (parts[0] if len(parts) == 1 else None)
