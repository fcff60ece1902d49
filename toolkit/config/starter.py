"""The commented config that `aitk init` writes."""

from __future__ import annotations

import re

from toolkit.config.choice import load_plugin
from toolkit.registry import ROOT

# for families that have no example of their own, and for the one that most people begin with
TEXT = """\
# Trains a LoRA on a folder of pictures. Check it with `aitk check`, run it with `aitk run`.
# All keys: `aitk schema`. ${{NAME}} is taken from the environment, [name] is the name below.
job: extension
config:
  name: {name}                  # names the folder and the files of the result
  process:
    - type: sd_trainer
      training_folder: output   # results go to output/{name}
      device: auto              # auto, cpu, cuda, cuda:1, mps
      # trigger_word: m1k4      # a rare word that will stand for your subject; put before captions that lack it
      model:
        arch: {arch}
        name_or_path: {model}
        quantize: true          # 8-bit weights: half the memory, nearly the same quality
      network:
        type: lora
        linear: 16              # rank; more holds more detail, and makes a larger file
        linear_alpha: 16        # the update is scaled by linear_alpha / linear
      datasets:
        - folder_path: datasets/{name}   # pictures, each with a caption in a .txt file of the same name
          caption_dropout_rate: 0.05     # sometimes train without the caption
          resolution: [512, 768, 1024]   # every picture at each of these sizes
          cache_latents_to_disk: true
      train:
        steps: 2000             # 500 to 4000, by the number of pictures
        batch_size: 1
        lr: 1e-4
        optimizer: adamw8bit
        dtype: bf16
        gradient_checkpointing: true     # needed unless there is a lot of memory
        # ema_config: {{use_ema: true, ema_decay: 0.99}}   # smoother results
      save:
        dtype: float16
        save_every: 250
        max_step_saves_to_keep: 4
      sample:
        sample_every: 250       # pictures from the same seed show the progress
        width: 1024
        height: 1024
        sample_steps: 20
        guidance_scale: 4
        seed: 42
        prompts:
          - a photo of [trigger] in a garden
          - a cup of coffee on a wooden table
"""


def starter(arch: str, name: str = "my_first_lora") -> str:
    """The text for a model family; ValueError if there is no such family."""
    plugin = load_plugin("models", arch)
    example = ROOT / "config" / "examples" / f"train_lora_{arch}.yaml"
    if arch != "flux" and example.is_file():
        # it has what this family needs: frames of a video, reference pictures, its own sampling
        text = example.read_text(encoding="utf-8").replace(f"config/examples/{example.name}", f"{name}.yaml")
        return re.sub(r"^  name: .+$", f"  name: {name}", text, count=1, flags=re.MULTILINE)
    return TEXT.format(arch=arch, name=name, model=plugin.example)
