"""The part of `train` about other predictions of the model: guidance while training, and what stays as it was."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator

from toolkit.config.section import Remarked, Section, planned, works

Scale = Annotated[float, Field(ge=0)]
TURBO = (
    "it trains through several denoising steps of SD with an old recipe; few-step models of today are distilled "
    "otherwise. Train the model as it is, and remove the key"
)
ASSIST = (
    "an adapter that helps belongs to SD 1.5; model.assistant_lora_path takes a LoRA that is on while training and off "
    "while sampling"
)


class GuidanceKeys(Section):
    """Guidance while training, and preservation."""

    negative_prompt: str | None = works(
        None,
        "Negative prompt of `do_cfg`, or a file with one per line of which some are drawn; default: the empty one.",
    )
    max_negative_prompts: int = works(
        1, "At most so many lines of that file are joined.", needs="negative_prompt", ge=1
    )
    unconditional_prompt: str = works(
        "", "Prompt that the target of `do_guidance_loss` is pushed away from.", needs="do_guidance_loss"
    )
    do_cfg: bool = works(False, "Train the guided prediction, through two passes, instead of the plain one.")
    do_random_cfg: bool = works(False, "The same with a scale from 1 to `max_cfg_scale`, drawn for every batch.")
    cfg_scale: float = works(1.0, "Scale of `do_cfg`; 1 is the plain prediction.", ge=0)
    max_cfg_scale: float | None = works(
        None, "Largest scale of `do_random_cfg`; default: `cfg_scale`.", needs="do_random_cfg", ge=1
    )
    cfg_rescale: float | None = works(
        None, "How far the guided prediction gets its deviation back, 0 to 1 (Lin et al., 2024).", ge=0, le=1
    )
    do_guidance_loss: bool = works(False, "Train toward a target that guidance has pushed further.")
    guidance_loss_target: Scale | Annotated[list[Scale], Field(min_length=2, max_length=2)] = works(
        3.0, "Scale of that; two numbers: one between them for each sample.", needs="do_guidance_loss"
    )
    do_guidance_loss_cfg_zero: bool = works(
        False, "Scale the unconditional prediction to fit first (CFG-Zero*).", needs="do_guidance_loss"
    )
    guidance_loss_schedule: Literal["constant", "sigma"] = works(
        "constant",
        "sigma: the scale grows from 1 for clean times to the whole for pure noise.",
        needs="do_guidance_loss",
    )
    do_differential_guidance: bool = works(
        False, "Move the target away from the prediction; with the squared error, a larger gradient."
    )
    differential_guidance_scale: float = works(3.0, "How many times as far.", needs="do_differential_guidance", ge=0)
    diff_output_preservation: bool = works(
        False, "Keep what captions gave before with the class in the place of the trigger word."
    )
    diff_output_preservation_multiplier: float = works(1.0, "Strength of that.", needs="diff_output_preservation", ge=0)
    diff_output_preservation_class: str = works("", "What the trigger word is a kind of.")
    blank_prompt_preservation: bool = works(False, "Keep what the empty prompt gave before.")
    blank_prompt_preservation_multiplier: float = works(
        1.0, "Strength of that.", needs="blank_prompt_preservation", ge=0
    )
    do_blank_stabilization: bool = works(
        False, "Train dropped captions (`caption_dropout_rate`) toward latents of 0 instead of their pictures."
    )
    inverted_mask_prior: bool = works(False, "Keep what the model answered where a mask leaves pictures out.")
    inverted_mask_prior_multiplier: float = works(0.5, "Strength of that.", needs="inverted_mask_prior", ge=0)
    train_turbo: bool = planned(False, "Train through several denoising steps.", why=TURBO)
    show_turbo_outputs: bool = planned(False, "Show what they give.", needs="train_turbo", why=TURBO)
    free_u: bool = planned(
        False,
        "FreeU.",
        why="it changes how a U-Net is sampled, and what is trained with it needs it ever after; use it to sample",
    )
    adapter_assist_name_or_path: str | None = planned(None, "Adapter that helps while training.", why=ASSIST)
    adapter_assist_type: str = planned("t2i", "Its type.", needs="adapter_assist_name_or_path", why=ASSIST)
    match_adapter_assist: bool = planned(False, "Match what the adapter gives.", why=ASSIST)
    match_adapter_chance: float = planned(0.0, "Chance of that.", needs="match_adapter_assist", why=ASSIST)

    @property
    def is_guided(self) -> bool:
        """Whether the guided prediction is trained."""
        return self.do_cfg or self.do_random_cfg

    @property
    def cfg_scales(self) -> tuple[float, float]:
        """The least and the greatest scale of the guided prediction."""
        if not self.do_random_cfg:
            return self.cfg_scale, self.cfg_scale
        return 1.0, self.cfg_scale if self.max_cfg_scale is None else self.max_cfg_scale

    @property
    def guidance_scales(self) -> tuple[float, float]:
        """The least and the greatest scale of the guided target."""
        if isinstance(self.guidance_loss_target, list):
            low, high = self.guidance_loss_target
            return low, high
        return self.guidance_loss_target, self.guidance_loss_target

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
        if self.diff_output_preservation and self.blank_prompt_preservation:
            yield ("blank_prompt_preservation",), "cannot be combined with diff_output_preservation; choose one of them"
        if self.is_guided and self.do_guidance_loss:
            text = "cannot be combined with do_cfg: one guides the prediction, the other the target; choose one of them"
            yield ("do_guidance_loss",), text

    @field_validator("diff_output_preservation_class", "unconditional_prompt")
    @classmethod
    def _strip(cls, value: str) -> str:
        return value.strip()
