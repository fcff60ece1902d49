"""The part of `train` that says what a step minimizes: times, loss and noise."""

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator
from pydantic_core import PydanticCustomError

from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.sample import Sampler

Emphasis = Literal["balanced", "content", "style"]
NO_EXTRACTOR = "it needs a network of ai-toolkit's own that was trained for it; use do_fft_loss or loss_type wavelet"
REFUSED = {
    "mean_flow": "the model would have to be told a second time, the one it goes to, and no model has an input for it",
    "unaugmented": "pictures are kept as they are trained only; leave the augmentations out",
    "differential_noise": "pictures are kept as they are trained only; leave the augmentations out",
}
"""Values of ai-toolkit, and why there is no such thing."""


class ObjectiveKeys(Section):
    """Times, loss and noise."""

    noise_scheduler: Sampler | None = works(
        None, "Noise schedule; it is always the one that the model was trained with."
    )
    num_train_timesteps: int = planned(
        1000,
        "Number of timesteps of the schedule.",
        why="the model decides: any time between 0 and 1 for flow matching, its own steps for SD and SDXL; remove it",
    )
    timestep_type: Literal[
        "sigmoid", "linear", "weighted", "weighted2", "shift", "flux_shift", "lumina2_shift", "lognorm_blend",
        "next_sample", "one_step", "two_step", "four_step", "eight_step",
    ] | None = works(None, "Which times are trained most: sigmoid the middle, shift the noisy ones, linear all alike. "
        "weighted: all alike, but the loss of the middle counts most. "
        "Default: sigmoid; linear for models that predict noise or v (SD, SDXL).")  # fmt: skip
    content_or_style: Emphasis = works("balanced", "content: more of the noisy times, style: more of the clean ones.")
    content_or_style_reg: Emphasis | None = works(
        None, "The same for regularization pictures (`datasets[].is_reg`); default: as `content_or_style`."
    )
    min_denoising_steps: int = works(0, "First of 1000 timesteps that is trained; 0 is the noisiest.", ge=0, le=999)
    max_denoising_steps: int = works(999, "Last of 1000 timesteps that is trained; 999 is the cleanest.", ge=0, le=1000)
    next_sample_timesteps: int = works(8, "Steps of the sampler of `timestep_type: next_sample`.", ge=2)
    linear_timesteps: bool = works(False, "Old name of `timestep_type: weighted`.")
    linear_timesteps2: bool = works(False, "Old name of `timestep_type: weighted2`.")
    switch_boundary_every: int = works(
        1, "Models with two experts (Wan 2.2): steps that one of them is trained before it is the other's turn.", ge=1
    )
    bypass_guidance_embedding: bool = works(
        False, "Train with the guidance embedding switched off. Otherwise a guidance-distilled model trains at scale 1."
    )

    loss_type: Literal[
        "mse", "mae", "pseudo_huber", "huber", "wavelet", "stepped", "mean_flow"
    ] = works("mse", "Distance of prediction and target: squares, absolute values, pseudo_huber (or huber) between "
        "the two, wavelet coefficients, or pictures after one sampling step (stepped).")  # fmt: skip
    huber_c: float = works(0.01, "aitk only. Up to this difference pseudo_huber is quadratic.", gt=0)
    loss_target: Literal["noise", "source", "unaugmented", "differential_noise"] = works(
        "noise", "What is compared: noise, the predictions; source, the pictures that they imply."
    )
    t0_loss_target: bool = works(False, "Compares the pictures that predictions imply, as `loss_target: source`.")
    t0_velocity_equiv_weight: bool = works(
        False, "Weighs these so that all times count as if predictions were compared.", needs="t0_loss_target"
    )
    do_fft_loss: bool = works(False, "Adds the difference of the spectra of the pictures that predictions imply.")
    do_fft_velocity_equiv_weight: bool = works(
        False, "Weighs this as t0_velocity_equiv_weight does.", needs="do_fft_loss"
    )
    min_snr_gamma: float | None = works(
        None, "Min-SNR weighting: clean times count less for SD and SDXL; 5 is usual, 0 is off.", ge=0
    )
    snr_gamma: float | None = works(None, "Weighting by gamma / SNR: clean times count less; 0 is off.", ge=0)
    learnable_snr_gos: bool = planned(
        False,
        "Learn the SNR weighting.",
        why="it follows the losses of the last steps, so no run could be resumed or repeated; use min_snr_gamma",
    )
    reg_weight: float = works(1.0, "Factor of the loss of regularization pictures (`datasets[].is_reg`).", ge=0)
    max_loss: float | None = works(
        None, "Largest loss of a sample; one that has a larger one teaches nothing in this step.", gt=0
    )
    max_loss_debug: bool = idle(False, "the logged loss shows it: it stays at max_loss")
    audio_loss_multiplier: float = idle(1.0, "only for sound")
    latent_feature_extractor_path: str | None = planned(
        None, "Network that compares features of latents.", why=NO_EXTRACTOR
    )
    latent_feature_loss_weight: float = planned(1.0, "Weight of that loss.", needs="latent_feature_extractor_path")
    diffusion_feature_extractor_path: str | None = planned(
        None, "Other name of `latent_feature_extractor_path`.", why=NO_EXTRACTOR
    )
    diffusion_feature_extractor_weight: float = planned(
        1.0, "Other name of `latent_feature_loss_weight`.", needs="diffusion_feature_extractor_path"
    )

    noise_offset: float = works(
        0.0, "Shifts each channel of the noise by a random amount of this size: very dark and very bright pictures."
    )
    dynamic_noise_offset: bool = works(False, "Shifts the noise by half the mean of the picture's latents.")
    multires_noise_iterations: int = works(
        0, "aitk only. So many levels of coarser noise are added, as in kohya's scripts; 6 to 10 are usual.", ge=0
    )
    multires_noise_discount: float = works(
        0.3, "aitk only. Factor of each level against the finer one; 0.1 to 0.3 are usual.",
        needs="multires_noise_iterations", gt=0, le=1,
    )  # fmt: skip
    noise_multiplier: float = works(1.0, "Factor of the noise.", gt=0)
    target_noise_multiplier: float = works(1.0, "Factor of the noise in the target.")
    random_noise_multiplier: float = works(0.0, "Size of a random factor of each channel of the noise.", ge=0)
    random_noise_shift: float = works(0.0, "Size of a random shift of each channel of the noise.", ge=0)
    img_multiplier: float = planned(
        1.0,
        "Contrast of the pictures.",
        why="pictures are encoded once, before training; lower their contrast with datasets[].augmentations, for "
        "instance ColorJitter with contrast [0.8, 0.8]",
    )
    noisy_latent_multiplier: float = works(1.0, "Factor of what the model is shown.", gt=0)
    latent_multiplier: float = works(1.0, "Factor of the latents.", gt=0)
    adaptive_scaling_factor: bool = works(False, "Scales each channel of the latents to a deviation of 1.")
    standardize_latents: bool = works(False, "Shifts and scales each channel of the latents to mean 0, deviation 1.")
    do_signal_correction_noise: bool = works(False, "Adds a random share of the picture itself to the noise.")
    signal_correction_noise_scale: float = works(1.0, "Size of that share.", needs="do_signal_correction_noise")
    do_batch_noise_correction: bool = works(False, "Adds a random share of another picture of the batch to the noise.")
    batch_noise_correction_scale: float = works(0.1, "Size of that share.", needs="do_batch_noise_correction")
    do_signal_amplification: bool = works(
        False, "Asks for a picture that is stronger than it is, the more the cleaner the time (flow matching only)."
    )
    signal_amplification_strength: float = works(0.5, "So much stronger at time 0.", needs="do_signal_amplification")
    optimal_noise_pairing_samples: int = works(
        1, "Draws so many noises for a sample and takes the one that is closest to the picture.", ge=1
    )
    force_consistent_noise: bool = works(False, "The same noise for a picture of a size at each visit.")
    blended_blur_noise: bool = works(False, "Adds a random share of what blurring takes from the picture.")
    match_noise_norm: bool = works(False, "Scales the prediction to the norm of the target before they are compared.")
    pred_scaler: float = works(1.0, "Factor of the prediction before it is compared.", gt=0)
    correct_pred_norm: bool = planned(
        False,
        "Scale the noise by the prediction of the frozen model.",
        why="the target would follow the mean and deviation of the prediction itself; to keep colors and contrast as "
        "they were use diff_output_preservation or blank_prompt_preservation",
    )
    correct_pred_norm_multiplier: float = planned(1.0, "Strength of that.", needs="correct_pred_norm")
    target_norm_std: float | None = works(
        None, "Adds the distance of the deviation of each predicted channel from target_norm_std_value, so often.", ge=0
    )
    target_norm_std_value: float = works(1.0, "That deviation.", needs="target_norm_std", ge=0)
    do_prior_divergence: bool = works(
        False,
        "Rewards every difference from the frozen model. Nothing bounds what can be gained: few steps, small lr.",
    )
    standardize_images: bool = planned(
        False,
        "Normalize mean and deviation of pictures.",
        why="the model would learn to paint in the shifted colors; remove it",
    )

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        yield from super().contradictions()
        if self.min_denoising_steps >= self.max_denoising_steps:
            yield ("min_denoising_steps",), f"must be less than max_denoising_steps, {self.max_denoising_steps}"
        if self.min_snr_gamma and self.snr_gamma:
            yield ("snr_gamma",), "is another weighting than min_snr_gamma; set one of the two"
        in_picture = "t0_loss_target" if self.t0_loss_target else "loss_target" if self.loss_target == "source" else ""
        if self.loss_type == "stepped" and in_picture:
            yield (in_picture,), "cannot be combined with loss_type stepped, which compares pictures already"
        if self.adaptive_scaling_factor and self.latent_multiplier != 1:
            yield ("latent_multiplier",), "is another scale than adaptive_scaling_factor finds; set one of the two"
        if self.timestep_type == "next_sample":
            yield from self._unlike_own_step()

    def _unlike_own_step(self) -> Iterator[Remarked]:
        """What `next_sample` makes anew, so that a change of it would be lost."""
        for key in ("noisy_latent_multiplier", "target_noise_multiplier", "do_signal_amplification"):
            if getattr(self, key) != type(self).model_fields[key].default:
                yield (key,), "cannot be combined with timestep_type next_sample, whose target is another one"

    @field_validator("loss_type", "loss_target")
    @classmethod
    def _refuse_choices(cls, value: str) -> str:
        if value in REFUSED:
            message = f"'{value}' is not supported: {REFUSED[value]}"
            raise PydanticCustomError("planned", "{message}", {"message": message})
        return value
