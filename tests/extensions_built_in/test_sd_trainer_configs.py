"""Configs as users of ai-toolkit write them run unmodified, apart from their paths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.cli.app import run_command_line
from toolkit.sampling.picture_files import list_pictures, read_metadata

# FLUX on the command line, in the manner of its first example: is_flux, optimizer names, sampling with prompts
COMMAND_LINE = """
---
job: extension
config:
  name: "my_first_flux_lora_v1"
  process:
    - type: 'sd_trainer'
      training_folder: "{output}"
      performance_log_every: 1000
      device: cpu
      trigger_word: "p3r5on"
      network:
        type: "lora"
        linear: 16
        linear_alpha: 16
      save:
        dtype: float16
        save_every: 2
        max_step_saves_to_keep: 4
        push_to_hub: false
      datasets:
        - folder_path: "{pictures}"
          caption_ext: "txt"
          caption_dropout_rate: 0.05
          shuffle_tokens: false
          cache_latents_to_disk: true
          resolution: [ 24, 32 ]
      train:
        batch_size: 1
        steps: 3
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
        name_or_path: "{model}"
        is_flux: true
        quantize: true
      sample:
        sampler: "flowmatch"
        sample_every: 2
        width: 64
        height: 64
        prompts:
          - "[trigger] holding a sign that says 'hello'"
          - "a cat --w 80 --d 5"
        neg: ""
        seed: 42
        walk_seed: true
        guidance_scale: 4
        sample_steps: 2
meta:
  name: "[name]"
  version: '1.0'
"""

# What its web interface exports: JSON, explicit nulls, keys of all families, samples[]
EXPORT: dict[str, Any] = {
    "job": "extension",
    "config": {
        "name": "ui_lora",
        "process": [
            {
                "type": "diffusion_trainer",
                "training_folder": "",
                "sqlite_db_path": "./aitk_db.db",
                "device": "cpu",
                "trigger_word": None,
                "performance_log_every": 10,
                "network": {
                    "type": "lora",
                    "linear": 32,
                    "linear_alpha": 32,
                    "conv": 16,
                    "conv_alpha": 16,
                    "lokr_full_rank": True,
                    "lokr_factor": -1,
                    "network_kwargs": {"ignore_if_contains": []},
                },
                "save": {"dtype": "bf16", "save_every": 250, "max_step_saves_to_keep": 4, "save_format": "diffusers",
                         "push_to_hub": False},
                "datasets": [
                    {
                        "folder_path": "",
                        "mask_path": None,
                        "mask_min_value": 0.1,
                        "default_caption": "",
                        "caption_ext": "txt",
                        "caption_dropout_rate": 0.05,
                        "cache_latents_to_disk": False,
                        "is_reg": False,
                        "network_weight": 1,
                        "resolution": [32],
                        "controls": [],
                        "shrink_video_to_frames": True,
                        "num_frames": 1,
                        "do_i2v": True,
                        "flip_x": False,
                        "flip_y": False,
                        "control_path": None,
                    }
                ],
                "train": {
                    "batch_size": 1,
                    "bypass_guidance_embedding": False,
                    "steps": 3,
                    "gradient_accumulation": 1,
                    "train_unet": True,
                    "train_text_encoder": False,
                    "gradient_checkpointing": True,
                    "noise_scheduler": "flowmatch",
                    "optimizer": "adamw8bit",
                    "timestep_type": "sigmoid",
                    "content_or_style": "balanced",
                    "optimizer_params": {"weight_decay": 0.0001},
                    "unload_text_encoder": False,
                    "cache_text_embeddings": False,
                    "lr": 0.0001,
                    "ema_config": {"use_ema": False, "ema_decay": 0.99},
                    "skip_first_sample": False,
                    "force_first_sample": False,
                    "disable_sampling": False,
                    "dtype": "bf16",
                    "diff_output_preservation": False,
                    "diff_output_preservation_multiplier": 1,
                    "diff_output_preservation_class": "person",
                    "switch_boundary_every": 1,
                    "loss_type": "mse",
                },
                "logging": {"log_every": 1, "use_ui_logger": True},
                "model": {
                    "name_or_path": "",
                    "quantize": True,
                    "qtype": "qfloat8",
                    "quantize_te": True,
                    "qtype_te": "qfloat8",
                    "arch": "flux",
                    "low_vram": False,
                    "model_kwargs": {},
                    "layer_offloading": False,
                    "layer_offloading_text_encoder_percent": 1,
                    "layer_offloading_transformer_percent": 1,
                },
                "sample": {
                    "sampler": "flowmatch",
                    "sample_every": 250,
                    "width": 64,
                    "height": 64,
                    "samples": [{"prompt": "a cat"}, {"prompt": "two dogs", "seed": 9, "ctrl_img": None}],
                    "neg": "",
                    "seed": 42,
                    "walk_seed": True,
                    "guidance_scale": 4,
                    "sample_steps": 1,
                    "num_frames": 1,
                    "fps": 1,
                },
            }
        ],
    },
    "meta": {"name": "[name]", "version": "1.0"},
}  # fmt: skip


def test_a_config_for_the_command_line(tmp_path: Path, tiny_flux: Path, noise_folder: Path, quick_gc: None) -> None:
    file = tmp_path / "train_lora_flux.yaml"
    text = COMMAND_LINE.format(output=tmp_path / "output", pictures=noise_folder, model=tiny_flux)
    file.write_text(text, encoding="utf-8")
    assert run_command_line(["run", str(file)]) == 0
    folder = tmp_path / "output" / "my_first_flux_lora_v1"
    names = ["my_first_flux_lora_v1.safetensors", "my_first_flux_lora_v1_000000002.safetensors"]
    assert sorted(path.name for path in folder.glob("*.safetensors")) == names
    pictures = list_pictures(folder / "samples")
    assert [(picture.step, picture.index) for picture in pictures] == [(0, 0), (0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    notes = [read_metadata(picture.path) for picture in pictures[:2]]
    assert [note["prompt"] for note in notes] == ["p3r5on holding a sign that says 'hello'", "a cat"]
    assert [(note["seed"], note["width"], note["guidance"]) for note in notes] == [(42, 64, 4.0), (5, 80, 4.0)]


def test_an_export_of_the_web_interface(tmp_path: Path, tiny_flux: Path, noise_folder: Path, quick_gc: None) -> None:
    config = json.loads(json.dumps(EXPORT))
    process = config["config"]["process"][0]
    process["training_folder"] = str(tmp_path / "output")
    process["datasets"][0]["folder_path"] = str(noise_folder)
    process["model"]["name_or_path"] = str(tiny_flux)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    assert run_command_line(["run", str(file)]) == 0
    folder = tmp_path / "output" / "ui_lora"
    assert (folder / "ui_lora.safetensors").exists()
    assert [read_metadata(picture.path)["seed"] for picture in list_pictures(folder / "samples")] == [42, 9, 42, 9]
