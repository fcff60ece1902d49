"""`model`: which checkpoint, how it is loaded. The keys that all model families share, and the contract of a family."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from toolkit.config.key_names import KeyNames
from toolkit.config.section import Remarked, Section, idle, planned, works
from toolkit.config.sections.values import Dtype

Qtype = Literal["qfloat8", "qint8", "qint4", "qint2", "int8", "int4", "float8"]


class QuantizeSection(Section):
    """More options of the quantization."""

    exclude: list[str] = works([], "Globs over the names of layers that stay as they are, such as `*.proj_out`.")


class ModelPlugin(Section):
    """The keys of `model`. A family inherits them, narrows `arch`, adds its own and builds itself."""

    flow: ClassVar[bool] = True
    """True if the family was trained by flow matching: `noise_scheduler` and `sampler` are flowmatch then."""

    example: ClassVar[str] = "owner/model"
    """A checkpoint of the family, for starter configs."""

    recognized_by: ClassVar[dict[str, Any]] = {}
    """What the model_index.json of its checkpoints says; "unet.cross_attention_dim" is a value of a part's config."""

    key_names: ClassVar[KeyNames] = KeyNames()
    """What its layers are called in LoRA files."""

    training_adapters: ClassVar[Mapping[str, str]] = {}
    """Distilled checkpoints, by a part of their name in lower case, and the `assistant_lora_path` of each."""

    arch: str = works(..., "The model family.")
    name_or_path: str = works(
        ...,
        "Checkpoint: a Hugging Face repository, a folder in diffusers format, `builtin:NAME`, or a .safetensors file "
        "(here, or `owner/repository/file.safetensors`) in the layout of diffusers, ComfyUI or the first release.",
        min_length=1,
    )
    revision: str | None = works(
        None, "aitk only. Branch, tag or commit of the repository `name_or_path`; default: its main branch."
    )
    dtype: str = idle("float16", "train.dtype decides", ui="bf16")
    extras_name_or_path: str | None = works(
        None,
        "Where text encoders, tokenizers and the VAE come from; default: `name_or_path`, or, if that is a single file, "
        "the family's usual repository.",
    )
    te_name_or_path: str | None = works(
        None, "Where the text encoder comes from, a single file included; default: `extras_name_or_path`."
    )
    vae_path: str | None = works(
        None, "Where the VAE comes from, a single file included; default: `extras_name_or_path`."
    )
    unet_path: str | None = works(
        None,
        "Where the denoiser (transformer or UNet) comes from, a single file included; default: `name_or_path`.",
    )
    vae_dtype: Dtype | None = works(None, "Precision of the VAE; default: what the family needs.")
    te_dtype: Dtype | None = works(None, "Precision of the text encoders; default: `train.dtype`.")

    quantize: bool = works(False, "Quantize the frozen weights of the denoiser: less memory, slightly slower.")
    qtype: Qtype = works(
        "qfloat8",
        "Quantization type of the denoiser: quanto's `qfloat8`, `qint8`, `qint4`, `qint2`, or torchao's `int8`, "
        "`float8`, `int4` (the latter on CUDA only).",
    )
    quantize_te: bool | None = works(None, "Quantize the text encoders; default: as `quantize`.")
    qtype_te: Qtype = works("qfloat8", "Quantization type of the text encoders.")
    quantize_kwargs: QuantizeSection = works(QuantizeSection, "More options of the quantization of the denoiser.")
    accuracy_recovery_adapter: str | None = works(
        None, "LoRA that makes up for the losses of a low-bit quantization; always active."
    )
    text_encoder_bits: Literal[16, 8, 4] = works(16, "8 or 4: quantize the large text encoder to qint8 or qint4.")

    low_vram: bool = works(
        False,
        "For small GPUs: quantize on the CPU, so that the GPU never sees an unquantized block, and stream the layers "
        "of the large text encoder from CPU memory. Parts are loaded one at a time in any case.",
    )
    layer_offloading: bool = works(
        False, "Keep frozen layers in CPU memory and stream them to the GPU while the one before computes."
    )
    layer_offloading_transformer_percent: float = works(
        1.0, "Share of the denoiser's layers that is offloaded, spread evenly; 1 is all.", ge=0, le=1
    )
    layer_offloading_text_encoder_percent: float = works(
        1.0, "Share of the large text encoder's layers that is offloaded; 1 is all.", ge=0, le=1
    )
    auto_memory: bool = works(False, "Old name of `layer_offloading`.")
    split_model_over_gpus: bool = planned(False, "Spread the denoiser over several GPUs.")
    split_model_other_module_param_count_scale: float = planned(
        0.3, "How the split weighs what is not a block.", needs="split_model_over_gpus"
    )

    compile: bool = works(False, "torch.compile the denoiser: minutes at the start for faster steps.")
    block_compile: bool = works(
        False, "With `compile`: compile the repeated blocks instead of the whole, which is quicker."
    )
    compile_mode: str = works("default", "Mode of torch.compile: default, reduce-overhead or max-autotune.")
    compile_fullgraph: bool = works(False, "Refuse graph breaks.")
    compile_dynamic: bool = works(True, "Compile for changing sizes.")
    cache_size_limit: int | None = works(None, "Number of compiled variants of a function that are kept.", ge=1)

    lora_path: str | None = works(None, "LoRA that is merged into the denoiser before training.")
    assistant_lora_path: str | None = works(
        None, "Training adapter for a distilled checkpoint: a LoRA that is active in training and off in samples."
    )
    inference_lora_path: str | None = works(None, "LoRA that is active only while sampling.")
    unconditional_lora_path: str | None = planned(None, "LoRA that is active only in the unconditional pass.")
    latent_space_version: str | None = idle(None, "caches are keyed by the VAE's content")
    attn_masking: bool = planned(False, "Mask the padding of the text (FLUX only).")
    only_if_contains: list[str] | None = works(None, "Full fine-tune: train only layers whose name contains one.")
    ignore_if_contains: list[str] | None = works(None, "Full fine-tune: leave out layers whose name contains one.")
    model_kwargs: dict[str, Any] = planned(
        {},
        "Options of one family; a family that has some replaces this key.",
        why="no option of this model is; remove them to train it without",
    )
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
    unet_sample_size: int | None = idle(None, "sizes are always given")

    @property
    def offloads_layers(self) -> bool:
        """Whether layers are streamed from CPU memory."""
        return self.layer_offloading or self.auto_memory

    @property
    def encoding(self) -> str:
        """What of it decides how texts and references are encoded, beside the weights: part of the keys of caches."""
        deciding = {"model_kwargs", "quantize", "quantize_te", "qtype_te", "text_encoder_bits"}
        return self.model_dump_json(include=deciding)

    def contradictions(self) -> Iterable[Remarked]:
        """Keys that do not go together."""
        yield from super().contradictions()
        if self.compile and self.offloads_layers:
            yield ("compile",), "does not go together with layer_offloading, whose copies torch.compile cannot trace"
        if self.block_compile and not self.compile:
            yield ("block_compile",), "needs `compile: true`"

    @abstractmethod
    def build(self, context: Any, *, checkpointing: bool, bypass_guidance: bool) -> Any:
        """The family (toolkit/models/family.py) with its parts unloaded.

        `checkpointing`: recompute activations; `bypass_guidance`: switch a guidance embedding off, if there is one.
        """
