"""`train`: the steps, the optimizer, the objective."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationInfo, field_validator

from toolkit.config.choice import check_options, load_plugin
from toolkit.config.section import Remarked, idle, planned, works
from toolkit.config.sections.ema import EmaSection
from toolkit.config.sections.guidance import GuidanceKeys
from toolkit.config.sections.objective import ObjectiveKeys
from toolkit.config.sections.schedule import LrSchedule, check_params
from toolkit.config.sections.validation import ValidationSection
from toolkit.config.sections.values import Dtype


class TrainSection(ObjectiveKeys, GuidanceKeys):
    """`train`."""

    steps: int = works(1000, "Number of updates; the run ends there.", ge=1)
    batch_size: int = works(1, "Pictures per batch.", ge=1)
    lr: float = works(1e-6, "Learning rate.", gt=0)
    unet_lr: float | None = works(None, "Learning rate of the denoiser; default: `lr`.", gt=0)
    text_encoder_lr: float | None = works(None, "Learning rate of the text encoders; default: `lr`.", gt=0)
    refiner_lr: float | None = planned(None, "Learning rate of the refiner.", why="the refiner of SDXL is not trained")
    embedding_lr: float | None = works(None, "Learning rate of an `embedding`; default: `lr`.", gt=0)
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
    single_item_batching: bool = planned(
        False,
        "Run the items of a batch one at a time.",
        why="batch_size 1 with gradient_accumulation is the same update in the same memory",
    )
    ema_config: EmaSection = works(EmaSection, "Moving average of the weights.")
    start_step: int | None = works(None, "Step number to begin with, instead of the checkpoint's.", ge=0)

    dtype: Dtype = works("fp32", "Precision of the computation.")
    gradient_checkpointing: bool = works(
        True, "Compute activations twice instead of keeping them: less memory, slower."
    )
    fsdp: bool | Literal["auto"] = works(
        "auto",
        "aitk only. With several GPUs and no network, each keeps a part of the weights; auto: where they are large.",
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
    weight_jitter: float = idle(0.0, "ai-toolkit does not read it either")
    merge_network_on_save: bool = works(
        False, "Beside the network, write the whole model with it merged in at every save: `<name>_<step>_merged`."
    )
    merge_network_on_save_strength: float = works(
        1.0, "Strength with which it is merged.", needs="merge_network_on_save"
    )
    do_paramiter_swapping: bool = planned(
        False,
        "Train a changing part of the weights.",
        why="a network trains in less memory, and model.only_if_contains trains chosen layers of the model itself",
    )
    paramiter_swapping_factor: float = planned(
        0.1, "Share of that part.", needs="do_paramiter_swapping", why="see do_paramiter_swapping"
    )

    prompt_dropout_prob: float = planned(
        0.0,
        "Chance to drop a prompt per text encoder.",
        why="caption_dropout_rate of a data set drops captions for all text encoders together, as pipelines do",
    )
    prompt_saturation_chance: float = planned(
        0.0,
        "Chance to repeat the prompt.",
        why="no pipeline repeats its prompt: the model would be trained for texts that it never gets; remove it",
    )
    short_and_long_captions: bool = planned(
        False,
        "Train with short and long captions.",
        why="list the data set twice, once with use_short_captions: true; both of its captions are trained then",
    )
    short_and_long_captions_encoder_split: bool = planned(
        False, "One of them per text encoder.", needs="short_and_long_captions", why="see short_and_long_captions"
    )

    skip_first_sample: bool = works(False, "No samples before the first step.")
    force_first_sample: bool = works(False, "Samples before the first step of a resumed run too.")
    disable_sampling: bool = works(False, "No samples at all.")
    validation_config: ValidationSection | None = works(None, "Loss on held-out pictures.")

    def optimizer_plugin(self) -> Any:
        """The optimizer's plugin with its options, ready to build."""
        return load_plugin("optimizers", self.optimizer).model_validate(self.optimizer_params)

    def spelled_out(self) -> dict[str, Any]:
        """The working keys, this class's first, with every option of the optimizer."""
        keys = {**super().spelled_out(), "optimizer_params": self.optimizer_plugin()}
        return {key: keys[key] for key in sorted(keys, key=lambda key: key not in type(self).__annotations__)}

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
        yield from super().contradictions()
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
