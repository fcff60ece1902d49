"""The part of `train` about other predictions of the model: guidance while training, and what stays as it was."""

from collections.abc import Iterator

from toolkit.config.section import Remarked, Section, planned


class GuidanceKeys(Section):
    """Guidance while training, and preservation."""

    negative_prompt: str | None = planned(None, "Negative prompts while training (text or file).")
    max_negative_prompts: int = planned(1, "At most so many of them.", needs="negative_prompt")
    unconditional_prompt: str = planned("", "Prompt of the unconditional pass.", needs="do_guidance_loss")
    do_cfg: bool = planned(False, "Classifier-free guidance while training.")
    do_random_cfg: bool = planned(False, "Guidance in random steps.")
    cfg_scale: float = planned(1.0, "Scale of that guidance.", needs="do_cfg")
    max_cfg_scale: float | None = planned(None, "Largest scale.", needs="do_cfg")
    cfg_rescale: float | None = planned(None, "Rescale of the guided prediction.", needs="do_cfg")
    do_guidance_loss: bool = planned(False, "Train toward the guided prediction.")
    guidance_loss_target: float | list[float] = planned(3.0, "Scale of that.", needs="do_guidance_loss")
    do_guidance_loss_cfg_zero: bool = planned(False, "CFG-zero in it.", needs="do_guidance_loss")
    guidance_loss_schedule: str = planned("constant", "How the scale changes with time.", needs="do_guidance_loss")
    do_differential_guidance: bool = planned(False, "Extrapolate the target.")
    differential_guidance_scale: float = planned(3.0, "Strength of that.", needs="do_differential_guidance")
    diff_output_preservation: bool = planned(False, "Keep the class of the concept as it was.")
    diff_output_preservation_multiplier: float = planned(1.0, "Strength of that.", needs="diff_output_preservation")
    diff_output_preservation_class: str = planned(
        "", "What the trigger word is a kind of.", ui="person", needs="diff_output_preservation"
    )
    blank_prompt_preservation: bool = planned(False, "Keep what the empty prompt gives as it was.")
    blank_prompt_preservation_multiplier: float = planned(1.0, "Strength of that.", needs="blank_prompt_preservation")
    do_blank_stabilization: bool = planned(False, "Keep the empty prompt stable.")
    inverted_mask_prior: bool = planned(False, "Keep what the mask leaves out as it was.")
    inverted_mask_prior_multiplier: float = planned(0.5, "Strength of that.", needs="inverted_mask_prior")
    train_turbo: bool = planned(False, "Train through several denoising steps.")
    show_turbo_outputs: bool = planned(False, "Show what they give.", needs="train_turbo")
    free_u: bool = planned(False, "FreeU.")
    adapter_assist_name_or_path: str | None = planned(None, "Adapter that helps while training.")
    adapter_assist_type: str = planned("t2i", "Its type.", needs="adapter_assist_name_or_path")
    match_adapter_assist: bool = planned(False, "Match what the adapter gives.")
    match_adapter_chance: float = planned(0.0, "Chance of that.", needs="match_adapter_assist")

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
