"""The part of `train` that says what a step minimizes: times, loss and noise."""

from collections.abc import Iterator
from typing import Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.sample import Sampler


class ObjectiveKeys(Section):
    """Times, loss and noise."""

    noise_scheduler: Sampler | None = works(
        None, "Noise schedule; it is always the one that the model was trained with."
    )
    num_train_timesteps: int = planned(1000, "Number of timesteps of the schedule.")
    timestep_type: Literal[
        "sigmoid", "linear", "weighted", "shift", "flux_shift",
        "lumina2_shift", "lognorm_blend", "next_sample", "one_step", "two_step", "four_step", "eight_step",
    ] | None = works(None, "Which times are trained most: sigmoid the middle, shift the noisy ones, linear all alike. "
        "Default: sigmoid; linear for models that predict noise or v (SD, SDXL).")  # fmt: skip
    content_or_style: Literal["balanced", "content", "style"] = works(
        "balanced", "content: more of the noisy times, style: more of the clean ones."
    )
    content_or_style_reg: str | None = idle(None, "there are no regularization pictures", ui="balanced")
    min_denoising_steps: int = works(0, "First of 1000 timesteps that is trained; 0 is the noisiest.", ge=0, le=999)
    max_denoising_steps: int = works(999, "Last of 1000 timesteps that is trained; 999 is the cleanest.", ge=0, le=1000)
    next_sample_timesteps: int = planned(8, "Steps of timestep_type next_sample.")
    linear_timesteps: bool = planned(False, "Old weighting of the times.")
    linear_timesteps2: bool = planned(False, "Old weighting of the times.")
    switch_boundary_every: int = works(
        1, "Models with two experts (Wan 2.2): steps that one of them is trained before it is the other's turn.", ge=1
    )
    bypass_guidance_embedding: bool = works(
        False, "Train with the guidance embedding switched off. Otherwise a guidance-distilled model trains at scale 1."
    )

    loss_type: Literal["mse", "mae", "wavelet", "stepped", "pseudo_huber", "mean_flow"] = works(
        "mse", "Distance between prediction and target."
    )
    loss_target: str = planned("noise", "What is predicted.")
    t0_loss_target: bool = planned(False, "Loss on the predicted picture.")
    t0_velocity_equiv_weight: bool = planned(False, "Weigh that as the velocity loss.", needs="t0_loss_target")
    do_fft_loss: bool = planned(False, "Loss in frequency space.")
    do_fft_velocity_equiv_weight: bool = planned(False, "Weigh that as the velocity loss.", needs="do_fft_loss")
    min_snr_gamma: float | None = planned(None, "Min-SNR weighting.")
    snr_gamma: float | None = planned(None, "SNR weighting.")
    learnable_snr_gos: bool = planned(False, "Learn the SNR weighting.")
    reg_weight: float = works(1.0, "Factor of the loss of regularization pictures (`datasets[].is_reg`).", ge=0)
    max_loss: float | None = planned(None, "Clip the loss.")
    max_loss_debug: bool = planned(False, "Say when it is clipped.", needs="max_loss")
    audio_loss_multiplier: float = idle(1.0, "only for sound")
    latent_feature_extractor_path: str | None = planned(None, "Network that compares features of latents.")
    latent_feature_loss_weight: float = planned(1.0, "Weight of that loss.", needs="latent_feature_extractor_path")
    diffusion_feature_extractor_path: str | None = planned(None, "Other name of `latent_feature_extractor_path`.")
    diffusion_feature_extractor_weight: float = planned(
        1.0, "Other name of `latent_feature_loss_weight`.", needs="diffusion_feature_extractor_path"
    )

    noise_offset: float = planned(0.0, "Offset of the noise per channel.")
    dynamic_noise_offset: bool = planned(False, "Offset of the noise by the latents' mean.")
    noise_multiplier: float = planned(1.0, "Factor of the noise.")
    target_noise_multiplier: float = planned(1.0, "Factor of the noise in the target.")
    random_noise_multiplier: float = planned(0.0, "Random factor of the noise.")
    random_noise_shift: float = planned(0.0, "Random shift of the noise.")
    img_multiplier: float = planned(1.0, "Factor of the pictures.")
    noisy_latent_multiplier: float = planned(1.0, "Factor of the noisy latents.")
    latent_multiplier: float = planned(1.0, "Factor of the latents.")
    adaptive_scaling_factor: bool = planned(False, "Scale latents by their deviation.")
    do_signal_correction_noise: bool = planned(False, "Add signal-dependent noise.")
    signal_correction_noise_scale: float = planned(1.0, "Strength of that.", needs="do_signal_correction_noise")
    do_batch_noise_correction: bool = planned(False, "Correct the noise by the batch.")
    batch_noise_correction_scale: float = planned(0.1, "Strength of that.", needs="do_batch_noise_correction")
    do_signal_amplification: bool = planned(False, "Amplify the signal.")
    signal_amplification_strength: float = planned(0.5, "Strength of that.", needs="do_signal_amplification")
    optimal_noise_pairing_samples: int = planned(1, "Draw so many noises and take the closest.")
    force_consistent_noise: bool = planned(False, "The same noise for a picture at each visit.")
    blended_blur_noise: bool = planned(False, "Blend blurred noise in.")
    match_noise_norm: bool = planned(False, "Scale the noise to the prediction's norm.")
    correct_pred_norm: bool = planned(False, "Scale the prediction to the noise's norm.")
    correct_pred_norm_multiplier: float = planned(1.0, "Strength of that.", needs="correct_pred_norm")
    pred_scaler: float = planned(1.0, "Factor of the prediction.")
    target_norm_std: float | None = planned(None, "Normalize the target.")
    target_norm_std_value: float = planned(1.0, "Deviation of that.", needs="target_norm_std")
    do_prior_divergence: bool = planned(False, "Push away from the frozen model.")
    standardize_images: bool = planned(False, "Normalize mean and deviation of pictures.")
    standardize_latents: bool = planned(False, "Normalize mean and deviation of latents.")

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
        if self.min_denoising_steps >= self.max_denoising_steps:
            yield ("min_denoising_steps",), f"must be less than max_denoising_steps, {self.max_denoising_steps}"

    @field_validator("timestep_type", "loss_type")
    @classmethod
    def _refuse_planned_choices(cls, value: str | None, info: ValidationInfo) -> str | None:
        working = WORKING_CHOICES[str(info.field_name)]
        if value is not None and value not in working:
            message = f"'{value}' is not supported yet (known: {', '.join(working)})"
            raise PydanticCustomError("planned", "{message}", {"message": message})
        return value


WORKING_CHOICES = {
    "timestep_type": ("sigmoid", "linear", "weighted", "shift", "flux_shift"),
    "loss_type": ("mse",),
}
