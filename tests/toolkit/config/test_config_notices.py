"""What is said once at the start: keys without effect, and what ai-toolkit would do otherwise. Nothing else is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.config import JobConfig, load, validate

Read = Callable[..., JobConfig]

# the job that ai-toolkit's UI makes, with what it writes beside its defaults
UI_JOB = """
{"job": "extension",
 "config": {"name": "my_first_lora_v1", "process": [{
  "type": "diffusion_trainer", "training_folder": "output", "sqlite_db_path": "./aitk_db.db", "device": "cuda",
  "trigger_word": null, "performance_log_every": 10,
  "network": {"type": "lora", "linear": 32, "linear_alpha": 32, "conv": 16, "conv_alpha": 16,
   "lokr_full_rank": true, "lokr_factor": -1, "network_kwargs": {"ignore_if_contains": []}},
  "save": {"dtype": "bf16", "save_every": 250, "max_step_saves_to_keep": 4, "save_format": "diffusers",
   "push_to_hub": false},
  "datasets": [{"folder_path": "/data", "mask_path": null, "mask_min_value": 0.1, "default_caption": "",
   "caption_ext": "txt", "caption_dropout_rate": 0.05, "cache_latents_to_disk": false, "is_reg": false,
   "network_weight": 1, "resolution": [512, 768, 1024], "controls": [], "shrink_video_to_frames": true,
   "num_frames": 1, "flip_x": false, "flip_y": false, "num_repeats": 1, "do_i2v": true, "do_audio": false, "fps": 24,
   "control_path": null, "control_path_1": null, "control_path_2": null, "control_path_3": null}],
  "train": {"batch_size": 1, "bypass_guidance_embedding": true, "steps": 3000, "gradient_accumulation": 1,
   "train_unet": true, "train_text_encoder": false, "gradient_checkpointing": true, "noise_scheduler": "flowmatch",
   "optimizer": "adamw8bit", "timestep_type": "sigmoid", "content_or_style": "balanced",
   "optimizer_params": {"weight_decay": 0.0001}, "unload_text_encoder": false, "cache_text_embeddings": false,
   "lr": 0.0001, "ema_config": {"use_ema": false, "ema_decay": 0.99}, "skip_first_sample": false,
   "force_first_sample": false, "disable_sampling": false, "dtype": "bf16", "diff_output_preservation": false,
   "diff_output_preservation_multiplier": 1.0, "diff_output_preservation_class": "person",
   "switch_boundary_every": 1, "loss_type": "mse", "blank_prompt_preservation": false,
   "blank_prompt_preservation_multiplier": 1.0, "do_differential_guidance": false},
  "logging": {"log_every": 1, "use_ui_logger": true},
  "model": {"name_or_path": "ostris/Flex.1-alpha", "quantize": true, "qtype": "qfloat8", "quantize_te": true,
   "qtype_te": "qfloat8", "arch": "flex1", "low_vram": false, "model_kwargs": {}, "compile": false,
   "layer_offloading": false, "layer_offloading_text_encoder_percent": 1, "layer_offloading_transformer_percent": 1},
  "sample": {"sampler": "flowmatch", "sample_every": 250, "width": 1024, "height": 1024, "neg": "", "seed": 42,
   "samples": [{"prompt": "woman with red hair"}, {"prompt": "a bear", "width": 512, "num_frames": 1}],
   "walk_seed": true, "guidance_scale": 4, "sample_steps": 25, "num_frames": 1, "fps": 1}}]},
 "meta": {"name": "[name]", "version": "1.0"}}
"""

# the example of ai-toolkit that most command-line users edit
EXAMPLE = """\
---
job: extension
config:
  name: "my_first_flux_lora_v1"
  process:
    - type: 'sd_trainer'
      training_folder: "output"
      performance_log_every: 10
      device: cuda:0
#      trigger_word: "p3r5on"
      network:
        type: "lora"
        linear: 16
        linear_alpha: 16
      save:
        dtype: float16
        save_every: 250
        max_step_saves_to_keep: 4
        push_to_hub: false
#       hf_repo_id: ${NOT_SET}
      datasets:
        - folder_path: "/path/to/images/folder"
          caption_ext: "txt"
          caption_dropout_rate: 0.05
          shuffle_tokens: false
          cache_latents_to_disk: true
          resolution: [ 512, 768, 1024 ]
      train:
        batch_size: 1
        steps: 2000
        gradient_accumulation_steps: 1
        train_unet: true
        train_text_encoder: false
        gradient_checkpointing: true
        noise_scheduler: "flowmatch"
        optimizer: "adamw8bit"
        lr: 1e-4
        ema_config:
          use_ema: true
          ema_decay: 0.99
        dtype: bf16
      model:
        name_or_path: "black-forest-labs/FLUX.1-dev"
        is_flux: true
        quantize: true
      sample:
        sampler: "flowmatch"
        sample_every: 250
        width: 1024
        height: 1024
        prompts:
          - "woman with red hair, playing chess at the park, bomb going off in the background"
        neg: ""
        seed: 42
        walk_seed: true
        guidance_scale: 4
        sample_steps: 20
meta:
  name: "[name]"
  version: '1.0'
"""


def test_nothing_is_said_about_the_job_that_the_ui_makes(folder: Path) -> None:
    Path("job.json").write_text(UI_JOB, encoding="utf-8")
    config = validate(load("job.json"))
    assert config.notices == ()
    assert config.meta == {"name": "my_first_lora_v1", "version": "1.0"}
    assert config.processes == validate(load(json.loads(UI_JOB))).processes


@pytest.mark.parametrize(("value", "count"), [(False, 0), (True, 1)])
def test_a_key_of_old_training_configs_has_no_effect(changed: Any, value: bool, count: int) -> None:
    data = {**changed(), "job": "train"}
    data["config"]["is_v2"] = value
    notices = [str(notice) for notice in validate(load(data)).notices]
    assert notices == ["config.is_v2: has no effect: the model of each process decides"] * count


def test_the_example_of_ai_toolkit_runs_with_two_notices(folder: Path) -> None:
    Path("job.yaml").write_text(EXAMPLE, encoding="utf-8")
    config = validate(load("job.yaml"))
    assert [str(notice) for notice in config.notices] == [
        "job.yaml:38: train.ema_config: the average is kept when a run resumes (ai-toolkit starts it anew)",
        "job.yaml:44: model.is_flux: read as `arch: flux`",
    ]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"network": {"linear_alpha": 32}}, "network.linear_alpha: scales the update by 32/16"),
        ({"network": {"linear_alpha": None}, "model": {"arch": "sdxl"}},
         "network.linear_alpha: not set, so the update is not scaled (ai-toolkit scales it by 1/16;"),
        ({"network": {"linear_alpha": None}, "model": {"arch": "auraflow"}},
         "network.linear_alpha: not set, so the update is not scaled (ai-toolkit scales it by 1/16;"),
        ({"network": {"linear_alpha": None, "type": "lokr", "lokr_full_rank": False}},
         "network.linear_alpha: not set, so the update is not scaled (ai-toolkit scales it by 1/16;"),
        ({"model": {"name_or_path": "black-forest-labs/FLUX.1-schnell"}},
         "model.name_or_path: is distilled to few steps, which training undoes; `assistant_lora_path: ostris/FLUX.1-s"),
        ({"model": {"name_or_path": "Tongyi-MAI/Z-Image-Turbo", "arch": "zimage"}},
         "model.name_or_path: is distilled to few steps, which training undoes; `assistant_lora_path: ostris/zimage_"),
        ({"train": {"gradient_accumulation_steps": 4}}, "train.gradient_accumulation_steps: accumulates 4 batches"),
        ({"train": {"gradient_accumulation": 4}}, "train.gradient_accumulation: gradients are averaged"),
        ({"train": {"lr_scheduler": "linear"}}, "train.lr_scheduler: goes down to 0"),
        ({"train": {"lr_scheduler": "cosine_with_restarts"}}, "train.lr_scheduler: restarts"),
        ({"train": {"lr_scheduler": "constant_with_warmup"}}, "train.lr_scheduler: warms up over a tenth"),
        ({"train": {"noise_scheduler": "ddpm"}}, "train.noise_scheduler: has no effect: flux was trained by flow"),
        ({"train": {"unet_lr": 1e-4}}, "train.unet_lr: is used, 0.0001 (ai-toolkit uses lr, 1e-06)"),
        ({"train": {"text_encoder_lr": 1e-4}}, "train.text_encoder_lr: has no effect: train_text_encoder is off"),
        ({"train": {"train_text_encoder": True, "text_encoder_lr": 1e-4}}, "train.text_encoder_lr: is used, 0.0001"),
        ({"train": {"noise_scheduler": "flowmatch"}, "model": {"arch": "sdxl"}},
         "train.noise_scheduler: has no effect: sdxl was trained by denoising diffusion, which decides"),
        ({"train": {"timestep_type": "sigmoid"}, "model": {"arch": "sdxl"}},
         "train.timestep_type: decides which times are trained (ai-toolkit trains all times alike with ddpm)"),
        ({"sample": {"sampler": "flowmatch"}, "model": {"arch": "sdxl"}},
         "sample.sampler: has no effect: sdxl was trained by denoising diffusion"),
        ({"sample": {"do_cfg_norm": True}}, "sample.do_cfg_norm: has no effect: models that were made for it"),
        ({"train": {"diff_output_preservation_class": "dog"}},
         "train.diff_output_preservation_class: has no effect: diff_output_preservation is off"),
        ({"train": {"differential_guidance_scale": 2}},
         "train.differential_guidance_scale: has no effect: do_differential_guidance is off"),
        ({"model": {"dtype": "fp32"}}, "model.dtype: has no effect: train.dtype decides"),
        ({"network": {"lokr_factor": 8}}, "network.lokr_factor: has no effect: only for LoKr"),
        ({"logging": {"verbose": True}}, "logging.verbose: has no effect: ai-toolkit does not read it either"),
        ({"datasets": [{"keep_tokens": 2, "shuffle_tokens": True}]}, "datasets.0.keep_tokens: these parts are not"),
        ({"datasets": [{"is_reg": True}]}, "datasets.0.is_reg: has no effect: there is no data set without it"),
        ({"datasets": [{"num_workers": 1}, {"folder_path": "b", "num_workers": 4}]},
         "datasets.1.num_workers: has no effect: the first data set decides for all (1)"),
        ({"sample": {"sampler": "ddpm"}}, "sample.sampler: has no effect: flux was trained by flow matching"),
        ({"sample": {"sample_every": 100000}}, "sample.sample_every: more than train.steps (1000): samples only"),
        ({"sample": {"prompts": ["a"], "samples": [{"prompt": "b"}]}}, "sample.prompts: has no effect"),
        ({"first_sample": {"sampler": "ddpm", "sample_every": 10**6}}, "first_sample.sampler: has no effect: flux"),
        ({"sample": {"prompts": ["a [trigger]"]}}, "sample.prompts: [trigger] stands for nothing"),
        ({"save": {"save_every": 5000}}, "save.save_every: more than train.steps (1000): saved only at the end"),
    ],
)  # fmt: skip
def test_one_notice(read: Read, sections: dict[str, Any], said: str) -> None:
    (notice,) = read(**sections).notices
    assert str(notice).startswith(said)


@pytest.mark.parametrize(
    "sections",
    [
        {"network": {"linear_alpha": None}},
        {"network": {"linear_alpha": 32}, "model": {"arch": "sdxl"}},
        {"network": {"linear_alpha": None, "alpha": 1}, "model": {"arch": "sdxl"}},
        {"network": {"linear_alpha": 32}, "model": {"arch": "auraflow"}},
        {"network": {"linear_alpha": 32, "type": "lokr", "lokr_full_rank": False}},
        {"network": {"linear_alpha": None, "type": "lokr"}},
        {"model": {"name_or_path": "black-forest-labs/FLUX.1-schnell", "assistant_lora_path": "owner/adapter"}},
        {"model": {"name_or_path": "ostris/Z-Image-De-Turbo", "arch": "zimage"}},
        {"model": {"model_kwargs": {"edit": False, "match_target_res": False}}},
        {"train": {"gradient_accumulation_steps": 1, "gradient_accumulation": 1}},
        {"train": {"lr_scheduler": "constant_with_warmup", "lr_scheduler_params": {"num_warmup_steps": 5}}},
        {"train": {"steps": 10}},
        {"train": {"noise_scheduler": "flowmatch", "max_denoising_steps": 1000, "min_snr_gamma": 0}},
        {"train": {"negative_prompt": "", "snr_gamma": None, "cfg_scale": 1}},
        {"datasets": [{"keep_tokens": 2, "network_weight": 1.0, "control_path": "", "num_workers": 4}]},
        {"sample": {"prompts": ["a [trigger]"]}, "trigger_word": "tok"},
        {"train": {"noise_scheduler": "ddpm", "timestep_type": "linear"}, "model": {"arch": "sdxl"}},
        {"sample": {"sampler": "ddim"}, "model": {"arch": "sdxl"}},
        {"sample": {"sampler": "unipc", "num_frames": 9, "fps": 24, "guidance_rescale": 0.5}},
        {"train": {"unet_lr": 1e-6, "attention_backend": "flash", "switch_boundary_every": 10}},
        {"adapter": None, "embedding": {}, "slider": {}, "guidance": {}},
    ],
)
def test_no_notice_where_nothing_changes(read: Read, sections: dict[str, Any]) -> None:
    assert read(**sections).notices == ()
