"""The training that torture.py kills: a LoRA of a tiny FLUX, which takes a second, on five drawn pictures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from extensions_built_in.flux.tiny import save_tiny
from toolkit.assets.shapes import all_specs, caption, draw

STEPS, SAVE_EVERY, KEEP = 7, 2, 1


def config_for(folder: Path) -> dict[str, Any]:
    """A training with all that writes files: caches, saves with pruning, an average, samples with their sheet."""
    process = {
        "type": "sd_trainer",
        "training_folder": str(folder / "output"),
        "device": "cpu",
        "model": {"arch": "flux", "name_or_path": str(folder / "model")},
        "network": {"type": "lora", "linear": 2, "network_kwargs": {"only_if_contains": ["attn.to_q"]}},
        "datasets": [
            {
                "folder_path": str(folder / "pictures"),
                "resolution": 32,
                "cache_latents_to_disk": True,
                "caption_dropout_rate": 0.3,
                "flip_x": True,
            }
        ],
        "train": {
            "steps": STEPS,
            "batch_size": 2,
            "lr": 1e-2,
            "gradient_checkpointing": False,
            "cache_text_embeddings": True,
            "ema_config": {"use_ema": True, "ema_decay": 0.9},
        },
        "save": {"dtype": "fp32", "save_every": SAVE_EVERY, "max_step_saves_to_keep": KEEP},
        "sample": {"prompts": ["a red circle", "a blue square"], "width": 32, "height": 32, "sample_steps": 2},
        "logging": {"log_every": 1},
    }
    process["sample"] |= {"sample_every": 4}  # type: ignore[operator]
    return {"job": "extension", "config": {"name": "run", "process": [process]}}


def make_inputs(folder: Path) -> int:
    """Write the model and the pictures."""
    save_tiny(folder / "model")
    rng = random.Random(0)
    (folder / "pictures").mkdir()
    for index, spec in enumerate(rng.sample(list(all_specs()), 5)):
        draw(spec, rng).save(folder / "pictures" / f"{index}.png")
        (folder / "pictures" / f"{index}.txt").write_text(caption(spec), encoding="utf-8")
    return 0
