"""The optimizers that `train.optimizer` can name; the fields are the keys of `train.optimizer_params`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from toolkit.config.plugins import OptimizerPlugin
from toolkit.config.section import works


def _split(value: Any) -> Any:
    """Read "0.9,0.999", as some configs have it, like a list."""
    return [part.strip() for part in value.strip("[]() ").split(",")] if isinstance(value, str) else value


Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Decay, Decay], BeforeValidator(_split)]

_BETAS = "Memory of the mean of the gradients, and of that of their squares; nearer to 1 is longer."
_EPS = "Added to the denominator; a larger value damps the steps of weights with tiny gradients."
_WEIGHT_DECAY = "Share of lr by which each update shrinks the weights."


class AdamW(OptimizerPlugin):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): two fp32 numbers of state per weight."""

    betas: Betas = works((0.9, 0.999), _BETAS)
    eps: float = works(1e-6, _EPS, gt=0)
    weight_decay: float = works(0.01, _WEIGHT_DECAY, ge=0)
    amsgrad: bool = works(False, "Divide by the largest mean square so far.")

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import adamw

        return adamw(params, lr, self.betas, self.eps, self.weight_decay, self.amsgrad)


class Adam(OptimizerPlugin):
    """Adam (Kingma and Ba, 2015); its weight decay is an L2 penalty in the gradient, unlike that of adamw."""

    betas: Betas = works((0.9, 0.999), _BETAS)
    eps: float = works(1e-6, _EPS, gt=0)
    weight_decay: float = works(0.0, "Strength of the L2 penalty.", ge=0)
    amsgrad: bool = works(False, "Divide by the largest mean square so far.")

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import adam

        return adam(params, lr, self.betas, self.eps, self.weight_decay, self.amsgrad)


class AdamW8bit(OptimizerPlugin):
    """AdamW with state in 8 bits (Dettmers et al., 2022), by bitsandbytes: a quarter of the memory of adamw."""

    betas: Betas = works((0.9, 0.999), _BETAS)
    eps: float = works(1e-6, _EPS, gt=0)
    weight_decay: float = works(0.01, _WEIGHT_DECAY, ge=0)
    min_8bit_size: int = works(4096, "Tensors with fewer weights keep fp32 state.", ge=0)

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import bitsandbytes_optimizer

        return bitsandbytes_optimizer(
            "AdamW8bit",
            params,
            lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            min_8bit_size=self.min_8bit_size,
        )


class Lion8bit(OptimizerPlugin):
    """Lion with state in 8 bits, by bitsandbytes: an eighth of the memory of adamw."""

    betas: Betas = works((0.9, 0.99), "Weight of the momentum in the step, and the momentum's memory.")
    weight_decay: float = works(0.0, _WEIGHT_DECAY, ge=0)
    min_8bit_size: int = works(4096, "Tensors with fewer weights keep fp32 state.", ge=0)

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import bitsandbytes_optimizer

        return bitsandbytes_optimizer(
            "Lion8bit",
            params,
            lr,
            betas=self.betas,
            weight_decay=self.weight_decay,
            min_8bit_size=self.min_8bit_size,
        )


class Adafactor(OptimizerPlugin):
    """Adafactor (Shazeer and Stern, 2018): state only per row and column, so hardly any memory."""

    eps: Annotated[tuple[float, float], BeforeValidator(_split)] = works(
        (1e-30, 1e-3), "Added to the squared gradients; smallest weight size if scale_parameter is on."
    )
    clip_threshold: float = works(1.0, "Largest root mean square of an update before lr is applied.", gt=0)
    decay_rate: float = works(-0.8, "Exponent of the memory of the squared gradients.", le=0)
    beta1: float | None = works(
        None, "Memory of the mean of the gradients; needs the full size. None: no memory.", ge=0, lt=1
    )
    weight_decay: float = works(0.0, _WEIGHT_DECAY, ge=0)
    scale_parameter: bool = works(
        False, "Scale lr by the size of the weights; a LoRA, which starts at 0, then hardly moves."
    )
    relative_step: bool = works(False, "Choose lr by the step number; train.lr and the schedule have no effect then.")
    warmup_init: bool = works(False, "Begin with a tiny lr; needs relative_step.")

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import adafactor

        return adafactor(params, lr, **self.model_dump())


class Prodigy(OptimizerPlugin):
    """Prodigy (Mishchenko and Defazio, 2024): AdamW that finds its lr itself; train.lr, 1 as a rule, scales it."""

    betas: Betas = works((0.9, 0.999), _BETAS)
    beta3: float | None = works(None, "Memory of the estimate of lr; None: the root of the second beta.", ge=0, lt=1)
    eps: float = works(1e-6, _EPS, gt=0)
    weight_decay: float = works(0.0, _WEIGHT_DECAY, ge=0)
    decouple: bool = works(True, "Weight decay as in adamw; false: as an L2 penalty.")
    use_bias_correction: bool = works(False, "Correct the bias of the first updates, as Adam does; a slower start.")
    safeguard_warmup: bool = works(False, "Keep a warm-up of lr from raising the estimate.")
    d0: float = works(1e-6, "First estimate of lr.", gt=0)
    d_coef: float = works(1.0, "Factor of the estimate; the way to make training stronger or weaker.", gt=0)
    growth_rate: float | None = works(
        None, "Largest growth of the estimate per step, such as 1.02; None: no limit.", gt=1
    )
    slice_p: int = works(1, "Estimate by every p-th weight only, which saves memory; 11 is sensible.", ge=1)

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import prodigy

        return prodigy(params, lr, **self.model_dump())


class Lion(OptimizerPlugin):
    """Lion (Chen et al., 2023): the sign of a momentum. Wants an lr 3 to 10 times smaller than adamw."""

    betas: Betas = works((0.9, 0.99), "Weight of the momentum in the step, and the momentum's memory.")
    weight_decay: float = works(0.0, _WEIGHT_DECAY, ge=0)
    decoupled_weight_decay: bool = works(False, "Decay independent of lr.")

    def build(self, params: Any, lr: float) -> Any:
        from extensions_built_in.optimizers.build import lion

        return lion(params, lr, self.betas, self.weight_decay, self.decoupled_weight_decay)
