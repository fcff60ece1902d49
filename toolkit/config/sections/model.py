"""`model`: which checkpoint, how it is loaded. The keys that all model families share, and the contract of a family."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from toolkit.config.section import Section, idle, planned, works
from toolkit.config.sections.values import Dtype


class ModelPlugin(Section):
    """The keys of `model`. A family inherits them, narrows `arch`, adds its own and builds itself."""

    flow: ClassVar[bool] = True
    """True if the family was trained by flow matching: `noise_scheduler` and `sampler` are flowmatch then."""

    example: ClassVar[str] = "owner/model"
    """A checkpoint of the family, for starter configs."""

    arch: str = works(..., "The model family.")
    name_or_path: str = works(
        ..., "Checkpoint: a Hugging Face repository, a folder in diffusers format, or `builtin:NAME`.", min_length=1
    )
    dtype: str = idle("float16", "train.dtype decides", ui="bf16")
    extras_name_or_path: str | None = works(
        None, "Where text encoders, tokenizers and the VAE come from; default: `name_or_path`."
    )
    te_name_or_path: str | None = works(None, "Where the text encoder comes from; default: `extras_name_or_path`.")
    vae_path: str | None = works(None, "Where the VAE comes from; default: `extras_name_or_path`.")
    unet_path: str | None = works(None, "Where the denoiser (transformer or UNet) comes from; default: `name_or_path`.")
    vae_dtype: Dtype | None = works(None, "Precision of the VAE; default: what the family needs.")
    te_dtype: Dtype | None = works(None, "Precision of the text encoders; default: `train.dtype`.")

    quantize: bool = works(False, "Quantize the frozen weights of the denoiser: less memory, slightly slower.")
    qtype: Literal["qfloat8", "qint8", "qint4"] = works("qfloat8", "Quantization type of the denoiser.")
    quantize_te: bool | None = works(None, "Quantize the text encoders; default: as `quantize`.")
    qtype_te: Literal["qfloat8", "qint8", "qint4"] = works("qfloat8", "Quantization type of the text encoders.")
    quantize_kwargs: dict[str, Any] = planned({}, "More options of the quantization, such as `exclude: [globs]`.")
    accuracy_recovery_adapter: str | None = planned(None, "LoRA that repairs the losses of a low-bit quantization.")
    text_encoder_bits: int = planned(16, "16, 8 or 4 bits for the T5 text encoder of old families.")

    low_vram: bool = idle(False, "parts are always loaded, quantized and freed one at a time", ui=True)
    layer_offloading: bool = planned(False, "Keep layers in CPU memory and stream them to the GPU.")
    layer_offloading_transformer_percent: float = planned(
        1.0, "Share of the denoiser that is offloaded.", needs="layer_offloading"
    )
    layer_offloading_text_encoder_percent: float = planned(
        1.0, "Share of the text encoder that is offloaded.", needs="layer_offloading"
    )
    auto_memory: bool = planned(False, "Old name of `layer_offloading`.")
    split_model_over_gpus: bool = planned(False, "Spread the denoiser over several GPUs.")
    split_model_other_module_param_count_scale: float = planned(
        0.3, "How the split weighs what is not a block.", needs="split_model_over_gpus"
    )

    compile: bool = planned(False, "torch.compile the denoiser.")
    block_compile: bool = planned(False, "Compile block by block.", needs="compile")
    compile_mode: str = planned("default", "Mode of torch.compile.", needs="compile")
    compile_fullgraph: bool = planned(False, "Refuse graph breaks.", needs="compile")
    compile_dynamic: bool = planned(True, "Compile for changing sizes.", needs="compile")
    cache_size_limit: int | None = planned(None, "Number of compiled variants that are kept.", needs="compile")

    lora_path: str | None = planned(None, "LoRA that is merged into the base before training.")
    assistant_lora_path: str | None = planned(None, "Training adapter for a distilled checkpoint.")
    inference_lora_path: str | None = planned(None, "LoRA that is active only while sampling.")
    unconditional_lora_path: str | None = planned(None, "LoRA that is active only in the unconditional pass.")
    latent_space_version: str | None = idle(None, "caches are keyed by the VAE's content")
    attn_masking: bool = planned(False, "Mask the padding of the text (FLUX only).")
    only_if_contains: list[str] | None = planned(None, "Full fine-tune: train only layers whose name contains one.")
    ignore_if_contains: list[str] | None = planned(None, "Full fine-tune: leave out layers whose name contains one.")
    model_kwargs: dict[str, Any] = planned({}, "Options of one family; a family that has some replaces this key.")
    model_paths: dict[str, Any] = idle({}, "ai-toolkit does not read it either")
    in_context: bool = idle(False, "ai-toolkit does not read it either")
    vae_device: str | None = idle(None, "parts are loaded one at a time")
    te_device: str | None = idle(None, "parts are loaded one at a time")

    is_flux: bool = works(False, "Old spelling of `arch: flux`.")
    is_v2: bool = works(False, "Old spelling of `arch: sd2`.")
    is_v3: bool = works(False, "Old spelling of `arch: sd3`.")
    is_xl: bool = works(False, "Old spelling of `arch: sdxl`.")
    is_pixart: bool = works(False, "Old spelling of `arch: pixart`.")
    is_pixart_sigma: bool = works(False, "Old spelling of `arch: pixart_sigma`.")
    is_auraflow: bool = works(False, "Old spelling of `arch: auraflow`.")
    is_lumina2: bool = works(False, "Old spelling of `arch: lumina2`.")
    is_ssd: bool = works(False, "Old spelling of `arch: ssd`.")
    is_vega: bool = works(False, "Old spelling of `arch: vega`.")
    is_v_pred: bool = planned(False, "The SD 2 checkpoint predicts v.")
    use_flux_cfg: bool = planned(False, "True classifier-free guidance on FLUX, with a second pass.")
    use_text_encoder_1: bool = planned(True, "SDXL: use the first text encoder.")
    use_text_encoder_2: bool = planned(True, "SDXL: use the second text encoder.")
    experimental_xl: bool = planned(False, "SDXL: experimental variant.")
    refiner_name_or_path: str | None = planned(None, "SDXL refiner.")
    refiner_start_at: float = planned(0.5, "SDXL: where the refiner takes over.", needs="refiner_name_or_path")
    unet_sample_size: int | None = planned(None, "Override of the UNet's sample size.")

    @abstractmethod
    def build(self, context: Any, *, checkpointing: bool, bypass_guidance: bool) -> Any:
        """The family (toolkit/models/family.py) with its parts unloaded.

        `checkpointing`: recompute activations; `bypass_guidance`: switch a guidance embedding off, if there is one.
        """
