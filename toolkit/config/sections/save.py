"""`save`: when and how results are written."""

from typing import Literal

from toolkit.config.section import Section, planned, works
from toolkit.config.sections.values import Dtype


class SaveSection(Section):
    """`save`."""

    dtype: Dtype = works("fp16", "Precision of saved weights.")
    save_every: int = works(1000, "Steps between two checkpoints; 0: only at the end.", ge=0)
    max_step_saves_to_keep: int = works(5, "Older checkpoints of this run are deleted.", ge=1)
    save_format: Literal["safetensors", "diffusers"] = works(
        "safetensors",
        "Of a full fine-tune: one safetensors file, or a diffusers folder. A LoRA is always a safetensors file.",
    )
    key_format: Literal["auto", "diffusers", "kohya", "comfyui", "original"] = works(
        "auto", "aitk only. Names of the layers in a LoRA file; auto: those that most programs read for this model."
    )
    push_to_hub: bool = planned(False, "Upload the result to the Hugging Face Hub at the end.")
    hf_repo_id: str | None = works(None, "Repository for `push_to_hub`.")
    hf_private: bool = works(False, "Make that repository private.")
