"""The keys of `train` as the pure functions of an objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.models.family import Facts
from toolkit.trainer.noise_rules import make_noise, make_prepare
from toolkit.training.distances import ERRORS, Comparison, pseudo_huber
from toolkit.training.objective import Adjust, Distance, Objective, Weight, alike, as_aimed, squared
from toolkit.training.own_step import after_own_step
from toolkit.training.path import Path
from toolkit.training.scaling import bent
from toolkit.training.times import Times
from toolkit.training.weights import clean_slope, min_snr, snr, stepped_slope

if TYPE_CHECKING:
    from toolkit.config.sections.objective import ObjectiveKeys

HUBER = ("pseudo_huber", "huber")


def make_objective(options: ObjectiveKeys, facts: Facts) -> Objective:
    """Times, noise, target and distance that the keys ask for. ValueError for what does not fit the model."""
    if options.do_signal_amplification and facts.prediction != "flow":
        raise ValueError("train.do_signal_amplification: only for models that were trained by flow matching; remove it")
    return Objective(
        Path.of(facts),
        make_times(options, facts),
        make_prepare(options),
        make_noise(options),
        make_adjust(options),
        distance=make_distance(options),
        weight=make_weight(options),
        max_loss=options.max_loss,
    )


def make_times(options: ObjectiveKeys, facts: Facts) -> Times:
    """Which times are trained."""
    kind = options.timestep_type or ("sigmoid" if facts.prediction == "flow" else "linear")
    if options.linear_timesteps or options.linear_timesteps2:
        kind = "weighted2" if options.linear_timesteps2 else "weighted"
    return Times(
        kind,
        options.content_or_style,
        options.content_or_style_reg,
        low=options.min_denoising_steps / 1000,
        high=min(1.0, (options.max_denoising_steps + 1) / 1000),
        num_steps=options.next_sample_timesteps,
    )


def make_adjust(options: ObjectiveKeys) -> Adjust:
    """What the network is shown and asked for."""
    if options.timestep_type == "next_sample":
        return after_own_step(options.next_sample_timesteps)
    amplification = options.signal_amplification_strength if options.do_signal_amplification else 0.0
    if options.noisy_latent_multiplier == options.target_noise_multiplier == 1 and not amplification:
        return as_aimed
    return bent(options.noisy_latent_multiplier, options.target_noise_multiplier, amplification)


def make_distance(options: ObjectiveKeys) -> Distance:
    """How prediction and target are compared."""
    is_stepped = options.loss_type == "stepped"
    in_picture = options.t0_loss_target or options.loss_target == "source"
    comparison = Comparison(
        pseudo_huber(options.huber_c) if options.loss_type in HUBER else ERRORS.get(options.loss_type, ERRORS["mse"]),
        slope=stepped_slope if is_stepped else clean_slope if in_picture else None,
        evens=in_picture and options.t0_velocity_equiv_weight,
        # squares of a twentieth are small: ai-toolkit's factor keeps learning rates what they are
        factor=10.0 if is_stepped else 1.0,
        matches_norm=options.match_noise_norm,
        scale=options.pred_scaler,
        spectrum=options.do_fft_loss,
        spectrum_evens=options.do_fft_velocity_equiv_weight,
        deviation=(options.target_norm_std, options.target_norm_std_value) if options.target_norm_std else None,
    )
    return squared if comparison == Comparison() else comparison


def make_weight(options: ObjectiveKeys) -> Weight:
    """How much each time counts."""
    if options.min_snr_gamma:
        return min_snr(options.min_snr_gamma)
    return snr(options.snr_gamma) if options.snr_gamma else alike
