"""`train`: the steps, the optimizer, the objective."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from toolkit.config.choice import check_options, load_plugin
from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.ema import EmaSection
from toolkit.config.sections.sample import Sampler
from toolkit.config.sections.schedule import LrSchedule, check_params
from toolkit.config.sections.validation import ValidationSection
from toolkit.config.sections.values import Dtype


class TrainSection(Section):
    """`train`."""

    steps: int = works(1000, "Number of updates; the run ends there.", ge=1)
    batch_size: int = works(1, "Pictures per batch.", ge=1)
    lr: float = works(1e-6, "Learning rate.", gt=0)
    unet_lr: float | None = works(None, "Learning rate of the denoiser; default: `lr`.", gt=0)
    text_encoder_lr: float | None = works(None, "Learning rate of the text encoders; default: `lr`.", gt=0)
    refiner_lr: float | None = planned(None, "Learning rate of the refiner.")
    embedding_lr: float | None = planned(None, "Learning rate of embeddings.")
    adapter_lr: float | None = planned(None, "Learning rate of the adapter.")
    optimizer: str = works("adamw", "The optimizer; `aitk ls` lists them.")
    optimizer_params: dict[str, Any] = works({}, "Options of the optimizer.")
    lr_scheduler: LrSchedule = works("constant", "How the learning rate changes over the run.")
    lr_scheduler_params: dict[str, Any] = works({}, "Options of the schedule.")
    max_grad_norm: float = works(1.0, "Gradients are scaled down to at most this norm; 0: never.", ge=0)
    gradient_accumulation: int = works(
        1, "Batches per update: as one batch that many times larger. The gradients are averaged.", ge=1
    )
    gradient_accumulation_steps: int = works(
        1, "Old name of `gradient_accumulation`; use one of the two. -1 is not supported yet.", ge=1
    )
    single_item_batching: bool = planned(False, "Run the items of a batch one at a time.")
    ema_config: EmaSection = works(EmaSection, "Moving average of the weights.")
    start_step: int | None = works(None, "Step number to begin with, instead of the checkpoint's.", ge=0)

    dtype: Dtype = works("fp32", "Precision of the computation.")
    gradient_checkpointing: bool = works(
        True, "Compute activations twice instead of keeping them: less memory, slower."
    )
    train_unet: bool = works(True, "Train the denoiser.")
    train_text_encoder: bool = works(
        False, "Train the text encoders too (SD and SDXL); captions are then encoded at every step."
    )
    train_refiner: bool = idle(True, "there is no refiner")
    attention_backend: str = works(
        "native", "Attention kernels: a name of diffusers, such as flash, sage or xformers; the package must be there."
    )
    sdp: bool = idle(False, "torch's attention is always used", ui=True)
    xformers: bool = works(False, "Old spelling of `attention_backend: xformers`.")
    cache_text_embeddings: bool = works(False, "Encode all captions once and unload the text encoders.")
    unload_text_encoder: bool = works(
        False, "Train without captions: encode the trigger word and the empty caption once, unload the text encoders."
    )
    do_paramiter_swapping: bool = planned(False, "Train a changing part of the weights.")
    paramiter_swapping_factor: float = planned(0.1, "Share of that part.", needs="do_paramiter_swapping")

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

    prompt_dropout_prob: float = planned(0.0, "Chance to drop a prompt per text encoder.")
    prompt_saturation_chance: float = planned(0.0, "Chance to repeat the prompt.")
    short_and_long_captions: bool = planned(False, "Train with short and long captions.")
    short_and_long_captions_encoder_split: bool = planned(
        False, "One of them per text encoder.", needs="short_and_long_captions"
    )
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
    weight_jitter: float = idle(0.0, "ai-toolkit does not read it either")
    merge_network_on_save: bool = planned(False, "Merge the LoRA into the model at each save.")
    merge_network_on_save_strength: float = planned(1.0, "Strength of that.", needs="merge_network_on_save")

    skip_first_sample: bool = works(False, "No samples before the first step.")
    force_first_sample: bool = works(False, "Samples before the first step of a resumed run too.")
    disable_sampling: bool = works(False, "No samples at all.")
    validation_config: ValidationSection | None = works(None, "Loss on held-out pictures.")

    def optimizer_plugin(self) -> Any:
        """The optimizer's plugin with its options, ready to build."""
        return load_plugin("optimizers", self.optimizer).model_validate(self.optimizer_params)

    def spelled_out(self) -> dict[str, Any]:
        """The working keys, with every option of the optimizer."""
        return {**super().spelled_out(), "optimizer_params": self.optimizer_plugin()}

    @property
    def attention(self) -> str:
        """The attention kernels, by either name."""
        return "xformers" if self.xformers else self.attention_backend

    @property
    def accumulate(self) -> int:
        """Batches per update, by either name."""
        return max(self.gradient_accumulation, self.gradient_accumulation_steps)

    def contradictions(self) -> Iterator[Remarked]:
        """Values that do not fit together."""
        if self.gradient_accumulation > 1 and self.gradient_accumulation_steps > 1:
            yield ("gradient_accumulation_steps",), "is the old name of gradient_accumulation; set one of the two"
        if self.min_denoising_steps >= self.max_denoising_steps:
            yield ("min_denoising_steps",), f"must be less than max_denoising_steps, {self.max_denoising_steps}"
        if not self.train_unet and not self.train_text_encoder:
            yield ("train_unet",), "nothing is trained: this and train_text_encoder are off"
        for key in ("cache_text_embeddings", "unload_text_encoder"):
            if self.train_text_encoder and getattr(self, key):
                yield (key,), "cannot be combined with train_text_encoder, which encodes captions at every step"
        if self.start_step is not None and self.start_step >= self.steps:
            yield ("start_step",), f"must be less than steps, {self.steps}"
        if self.validation_config is not None and not self.validation_config.validation_items:
            yield ("validation_config",), "validation_items is empty: there is nothing to measure"

    @field_validator("optimizer")
    @classmethod
    def _check_optimizer(cls, value: str) -> str:
        load_plugin("optimizers", value)
        return value

    @field_validator("optimizer_params")
    @classmethod
    def _check_optimizer_params(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "optimizer" in info.data:
            # a ValidationError in here keeps its key paths, below optimizer_params
            check_options("optimizers", info.data["optimizer"], value, info.context)
        return value

    @field_validator("lr_scheduler_params")
    @classmethod
    def _check_schedule_params(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "lr_scheduler" in info.data:
            check_params(info.data["lr_scheduler"], value)
        return value

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
