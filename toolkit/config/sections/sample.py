"""`sample` and `first_sample`: pictures that are made while training."""

from typing import Any, Literal

from toolkit.config.section import Section, idle, planned, works

Sampler = Literal[
    "flowmatch", "ddpm", "ddim", "pndm", "lms", "k_lms", "euler", "k_euler", "euler_a", "k_euler_a",
    "k_euler_ancestral", "dpmsolver", "dpmsolver++", "k_dpmsolver", "k_dpmsolver++", "dpmsingle",
    "heun", "k_heun", "dpm_2", "k_dpm_2",
    "dpm_2_a", "k_dpm_2_a", "lcm", "custom_lcm", "mean_flow", "unipc",
]  # fmt: skip
CFG_NORM = "models that were made for it (Qwen-Image) keep the norm of the guided prediction anyway, others never do"
PROMPT_KEYS = {
    "prompts", "samples", "neg", "seed", "walk_seed", "width", "height", "guidance_scale", "sample_steps",
    "network_multiplier", "guidance_rescale", "num_frames", "fps",
}  # fmt: skip


class SampleItem(Section):
    """`sample.samples[]`: one picture; what is left out comes from the section."""

    prompt: str = works(..., "The prompt; inline flags such as `--w 512` are read, `[trigger]` is replaced.")
    width: int | None = works(None, "Width in pixels.", ge=16)
    height: int | None = works(None, "Height in pixels.", ge=16)
    neg: str | None = works(None, "Negative prompt.")
    seed: int | None = works(None, "Seed; -1 draws one when the run starts.", ge=-1)
    guidance_scale: float | None = works(None, "Guidance scale, in the unit of the family.", ge=0)
    sample_steps: int | None = works(None, "Denoising steps.", ge=1)
    network_multiplier: float | None = works(None, "Strength of the trained network.")
    guidance_rescale: float | None = works(
        None, "aitk only. How far the guided prediction gets its deviation back.", ge=0, le=1
    )
    fps: int | None = works(None, "Video: frames per second.", ge=1)
    num_frames: int | None = works(None, "Video: number of frames; 1 makes a picture.", ge=1)
    ctrl_img: str | None = works(None, "Reference or control picture, for models that take one.")
    ctrl_idx: int = planned(0, "Index of the control.")
    ctrl_img_1: str | None = works(None, "The same by another name; wins over `ctrl_img`.")
    ctrl_img_2: str | None = works(None, "Second picture.")
    ctrl_img_3: str | None = works(None, "Third picture.")
    do_cfg_norm: bool = idle(False, CFG_NORM)


class SampleSection(Section):
    """`sample`, `first_sample`."""

    sampler: Sampler | None = works(
        None,
        "Sampler; default, and `flowmatch`: the one of the checkpoint. Flow models also know euler, unipc and "
        "dpmsolver++; ai-toolkit's default is ddpm.",
    )
    sample_every: int = works(100, "Steps between two rounds of samples; 0: only before and after.", ge=0)
    sample_start_step: int = works(0, "No samples between the first round and this step.", ge=0)
    width: int = works(512, "Width in pixels.", ge=16)
    height: int = works(512, "Height in pixels.", ge=16)
    prompts: list[str] = works([], "Prompts; inline flags such as `--w 512` are read, `[trigger]` is replaced.")
    samples: list[SampleItem] = works([], "Prompts with settings of their own; replaces `prompts`.")
    neg: str | Literal[False] = works(False, "Negative prompt.")
    seed: int = works(0, "Seed of the first picture; -1 draws one when the run starts.", ge=-1)
    walk_seed: bool = works(False, "Picture i uses seed + i; otherwise all use the same seed.")
    guidance_scale: float = works(7.0, "Guidance scale, in the unit of the family.", ge=0)
    guidance_rescale: float = works(
        0.0, "How far the guided prediction gets its deviation back (0: not at all, 1: fully).", ge=0, le=1
    )
    sample_steps: int = works(20, "Denoising steps.", ge=1)
    network_multiplier: float = works(1.0, "Strength of the trained network.")
    format: Literal["jpg", "png", "webp"] = works("jpg", "File format of the pictures.")
    adapter_conditioning_scale: float = planned(1.0, "Strength of an adapter.")
    refiner_start_at: float = planned(0.5, "SDXL: where the refiner takes over.")
    extra_values: list[float] = planned([], "Values for a single_value adapter.")
    num_frames: int = works(1, "Video: number of frames; 1 makes a picture. Videos are webp and mp4 files.", ge=1)
    fps: int = works(16, "Video: frames per second.", ge=1)
    do_cfg_norm: bool = idle(False, CFG_NORM)

    def prompt_keys(self) -> dict[str, Any]:
        """What `read_prompts` of toolkit/sampling/prompts.py takes of it, under the same names."""
        return self.model_dump(include=PROMPT_KEYS)
