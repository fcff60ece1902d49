"""Every key of ai-toolkit's sections is known, with a type, a default, a description and a state."""

import pytest
from pydantic import ValidationError

from extensions_built_in.sd_trainer.config import SdTrainer
from toolkit.config.plugins import ModelPlugin, NetworkPlugin
from toolkit.config.section import Section, changes_nothing, state_of
from toolkit.config.sections.adapter import AdapterSection
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.ema import EmaSection
from toolkit.config.sections.embedding import EmbeddingSection
from toolkit.config.sections.logging import LoggingSection
from toolkit.config.sections.network import LayerChoice, LormSection
from toolkit.config.sections.sample import SampleItem, SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.config.sections.validation import ValidationItem, ValidationSection

# the keys of ai-toolkit 0.12.26
UPSTREAM = {
    SdTrainer: """
        type name training_folder device training_seed log_dir performance_log_every sqlite_db_path trigger_word
        network train model datasets save sample first_sample logging adapter embedding decorator guidance
        slider replacements rescale do_lorm lorm_extract_mode lorm_extract_mode_param torch_profiler
    """,
    ModelPlugin: """
        name_or_path arch is_v2 is_v3 is_xl is_pixart is_pixart_sigma is_auraflow is_flux is_lumina2 is_ssd
        is_vega is_v_pred use_flux_cfg dtype vae_path vae_device te_device vae_dtype te_dtype unet_path
        unet_sample_size te_name_or_path extras_name_or_path text_encoder_bits refiner_name_or_path
        refiner_start_at lora_path assistant_lora_path inference_lora_path unconditional_lora_path
        latent_space_version use_text_encoder_1 use_text_encoder_2 experimental_xl quantize quantize_te qtype
        qtype_te quantize_kwargs accuracy_recovery_adapter low_vram layer_offloading
        layer_offloading_transformer_percent layer_offloading_text_encoder_percent auto_memory attn_masking
        only_if_contains ignore_if_contains split_model_over_gpus split_model_other_module_param_count_scale
        compile block_compile compile_mode compile_fullgraph compile_dynamic cache_size_limit model_kwargs
        model_paths in_context
    """,
    TrainSection: """
        steps batch_size lr unet_lr text_encoder_lr refiner_lr embedding_lr adapter_lr optimizer
        optimizer_params lr_scheduler lr_scheduler_params dtype train_unet train_text_encoder train_refiner
        gradient_checkpointing gradient_accumulation gradient_accumulation_steps single_item_batching
        max_grad_norm noise_scheduler timestep_type next_sample_timesteps linear_timesteps linear_timesteps2
        content_or_style content_or_style_reg min_denoising_steps max_denoising_steps num_train_timesteps
        loss_type loss_target t0_loss_target t0_velocity_equiv_weight do_fft_loss do_fft_velocity_equiv_weight
        min_snr_gamma snr_gamma learnable_snr_gos noise_offset dynamic_noise_offset noise_multiplier
        target_noise_multiplier random_noise_multiplier random_noise_shift img_multiplier
        noisy_latent_multiplier latent_multiplier adaptive_scaling_factor do_signal_correction_noise
        signal_correction_noise_scale do_batch_noise_correction batch_noise_correction_scale
        do_signal_amplification signal_amplification_strength optimal_noise_pairing_samples
        force_consistent_noise blended_blur_noise match_noise_norm correct_pred_norm
        correct_pred_norm_multiplier pred_scaler target_norm_std target_norm_std_value do_prior_divergence
        standardize_images standardize_latents prompt_dropout_prob prompt_saturation_chance
        short_and_long_captions short_and_long_captions_encoder_split negative_prompt max_negative_prompts
        do_cfg do_random_cfg cfg_scale max_cfg_scale cfg_rescale do_guidance_loss guidance_loss_target
        do_guidance_loss_cfg_zero guidance_loss_schedule unconditional_prompt bypass_guidance_embedding
        do_differential_guidance differential_guidance_scale diff_output_preservation
        diff_output_preservation_multiplier diff_output_preservation_class blank_prompt_preservation
        blank_prompt_preservation_multiplier do_blank_stabilization inverted_mask_prior
        inverted_mask_prior_multiplier reg_weight ema_config train_turbo show_turbo_outputs free_u
        adapter_assist_name_or_path adapter_assist_type match_adapter_assist match_adapter_chance weight_jitter
        merge_network_on_save merge_network_on_save_strength start_step skip_first_sample force_first_sample
        disable_sampling unload_text_encoder cache_text_embeddings do_paramiter_swapping
        paramiter_swapping_factor latent_feature_extractor_path latent_feature_loss_weight xformers sdp
        attention_backend switch_boundary_every audio_loss_multiplier max_loss max_loss_debug validation_config
        diffusion_feature_extractor_path diffusion_feature_extractor_weight
    """,
    DatasetSection: """
        folder_path dataset_path type batch_size resolution scale buckets bucket_tolerance square_crop
        random_crop random_scale caption_ext caption_type default_caption trigger_word random_triggers
        random_triggers_max use_short_captions caption_dropout_rate token_dropout_rate keep_tokens
        shuffle_tokens replacements num_repeats is_reg prior_reg network_weight loss_multiplier extra_values
        flip_x flip_y augments augmentations shuffle_augmentations replay_transforms standardize_images
        control_path control_path_1 control_path_2 control_path_3 control_from_same_folder
        num_controls_from_same_folder control_transparent_color full_size_control_images controls inpaint_path
        mask_path alpha_mask invert_mask mask_min_value unconditional_path guidance_type poi clip_image_path
        clip_image_from_same_folder clip_image_augmentations clip_image_shuffle_augmentations cache_latents
        cache_latents_to_disk cache_tensors_to_disk cache_clip_vision_to_disk cache_text_embeddings
        load_image_when_caching_latents cache_latents_num_workers num_workers prefetch_factor fast_image_size
        num_frames shrink_video_to_frames fps auto_frame_count trim_auto_frame_count_tail do_i2v do_audio
        audio_preserve_pitch audio_normalize diff_output_preservation diff_output_preservation_class debug
    """,
    SaveSection: """
        dtype save_every max_step_saves_to_keep save_format push_to_hub hf_repo_id hf_private
    """,
    SampleSection: """
        sampler sample_every sample_start_step width height prompts samples neg seed walk_seed guidance_scale
        guidance_rescale sample_steps network_multiplier format adapter_conditioning_scale refiner_start_at
        extra_values num_frames fps do_cfg_norm
    """,
    SampleItem: """
        prompt width height neg seed guidance_scale sample_steps fps num_frames ctrl_img ctrl_idx ctrl_img_1
        ctrl_img_2 ctrl_img_3 network_multiplier do_cfg_norm
    """,
    LoggingSection: """
        log_every verbose use_wandb use_ui_logger project_name run_name
    """,
    NetworkPlugin: """
        type rank linear alpha linear_alpha conv conv_alpha dropout network_kwargs transformer_only
        lokr_full_rank lokr_factor old_lokr_format split_multistage_loras layer_offloading pretrained_lora_path
        all_layers lorm
    """,
    LayerChoice: """
        only_if_contains ignore_if_contains full_if_contains parameter_threshold attn_only rank_dropout
        module_dropout block_dims block_alphas conv_block_dims conv_block_alphas target_lin_modules
        target_conv_modules use_bias full_train_in_out
    """,
    EmaSection: """
        use_ema ema_decay use_feedback param_multiplier
    """,
    ValidationSection: """
        validation_items resolution validate_every_n_steps validation_sigmas
    """,
    ValidationItem: """
        image_path prompt
    """,
    LormSection: """
        extract_mode do_conv extract_mode_param parameter_threshold module_settings
    """,
    EmbeddingSection: """
        trigger tokens init_words save_format trigger_class_name
    """,
    AdapterSection: """
        type in_channels channels num_res_blocks downscale_factor adapter_type image_dir test_img_path train
        image_encoder_path name_or_path num_tokens train_image_encoder train_only_image_encoder
        train_only_image_encoder_positional_embedding image_encoder_arch safe_reducer_channels safe_channels
        safe_tokens quad_image trigger trigger_class_name class_names clip_layer text_encoder_path
        text_encoder_arch train_scaler scaler_lr merge_scaler head_dim num_heads ilora_down ilora_mid ilora_up
        pixtral_max_image_size pixtral_random_image_size flux_only_double conv_pooling conv_pooling_stacks
        sparse_autoencoder_dim num_cloned_blocks quantize_llm lora_config num_control_images
        control_image_dropout has_inpainting_input invert_inpaint_mask_chance subpixel_downscale_factor
        i2v_do_start_frame
    """,
}
OURS: dict[type[Section], set[str]] = {
    DatasetSection: {
        "strict",
        "background",
        "image_column",
        "caption_column",
        "captions",
        "min_resolution",
        "max_aspect",
        "weight",
        "num_variants",
    },
    SdTrainer: {"dreambooth"},
    TrainSection: {"fsdp", "huber_c", "multires_noise_discount", "multires_noise_iterations"},
    ModelPlugin: {"revision"},
    NetworkPlugin: {"loraplus_lr_ratio"},
    SaveSection: {"hf_include", "key_format"},
    SampleItem: {"guidance_rescale"},
}
SECTIONS = list(UPSTREAM)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_of_ai_toolkit_is_known_and_every_other_is_marked_as_ours(section: type[Section]) -> None:
    known, theirs = set(section.model_fields), set(UPSTREAM[section].split())
    assert theirs - known == set()
    assert known - theirs == OURS.get(section, set())
    for key in OURS.get(section, ()):
        assert (section.model_fields[key].description or "").startswith("aitk only.")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_has_a_description_and_a_default_that_is_valid(section: type[Section]) -> None:
    for key, field in section.model_fields.items():
        assert field.description, key
        if state_of(field) != "works":
            assert not field.is_required(), key
            assert changes_nothing(field, field.get_default(call_default_factory=True)), key
    complete = {
        key: field.get_default(call_default_factory=True)
        for key, field in section.model_fields.items()
        if not field.is_required()
    }
    for key, value in complete.items():
        try:
            section.model_validate({key: value})
        except ValidationError as error:
            assert {item["type"] for item in error.errors()} <= {"missing"}, key
        except TypeError:
            assert section in (ModelPlugin, NetworkPlugin, SdTrainer)


@pytest.mark.parametrize(
    ("section", "key", "default"),
    [
        (TrainSection, "steps", 1000),
        (TrainSection, "lr", 1e-6),
        (TrainSection, "dtype", "fp32"),
        (TrainSection, "gradient_checkpointing", True),
        (TrainSection, "max_grad_norm", 1.0),
        (TrainSection, "max_denoising_steps", 999),
        (DatasetSection, "resolution", 512),
        (DatasetSection, "caption_ext", ".txt"),
        (DatasetSection, "num_workers", 2),
        (SaveSection, "dtype", "fp16"),
        (SaveSection, "save_every", 1000),
        (SaveSection, "max_step_saves_to_keep", 5),
        (SampleSection, "guidance_scale", 7.0),
        (SampleSection, "sample_every", 100),
        (SampleSection, "format", "jpg"),
        (LoggingSection, "log_every", 100),
        (NetworkPlugin, "linear", 4),
        (NetworkPlugin, "transformer_only", True),
        (EmaSection, "ema_decay", 0.999),
        (ModelPlugin, "qtype", "qfloat8"),
        (ValidationSection, "validate_every_n_steps", 10),
    ],
)
def test_defaults_are_those_of_ai_toolkit(section: type[Section], key: str, default: object) -> None:
    assert section.model_fields[key].default == default
