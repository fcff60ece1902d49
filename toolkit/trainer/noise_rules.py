"""The keys of `train` about noise and latents: which random numbers a sample gets, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.training import noises, scaling
from toolkit.training.draws import Draws
from toolkit.training.noises import Rule, changed_by
from toolkit.training.objective import Noise, Prepare, as_it_is, drawn_noise
from toolkit.training.scaling import Scaling, prepared_by

if TYPE_CHECKING:
    from toolkit.config.sections.objective import ObjectiveKeys


def make_draws(options: ObjectiveKeys) -> Draws:
    """The random numbers that the noise of `make_noise` needs."""
    normals = {
        "offset": options.noise_offset,
        "signal": options.do_signal_correction_noise,
        "neighbor": options.do_batch_noise_correction,
        "shift": options.random_noise_shift,
        "factor": options.random_noise_multiplier,
    }
    return Draws(
        options.force_consistent_noise,
        options.multires_noise_iterations,
        options.multires_noise_discount,
        options.optimal_noise_pairing_samples,
        tuple(name for name, is_used in normals.items() if is_used),
        ("blur",) if options.blended_blur_noise else (),
    )


def make_noise(options: ObjectiveKeys) -> Noise:
    """The noise of a batch, by the rules in the order of ai-toolkit."""
    rules: list[tuple[object, Rule]] = [
        (options.optimal_noise_pairing_samples > 1, noises.closest),
        (options.noise_offset, noises.offset_by(options.noise_offset)),
        (options.blended_blur_noise, noises.blurred),
        (options.dynamic_noise_offset, noises.toward_mean),
        (options.noise_multiplier != 1, noises.times(options.noise_multiplier)),
        (options.do_signal_correction_noise, noises.with_signal(options.signal_correction_noise_scale)),
        (options.do_batch_noise_correction, noises.with_neighbor(options.batch_noise_correction_scale)),
        (options.random_noise_shift, noises.shifted_by(options.random_noise_shift)),
        (options.random_noise_multiplier, noises.scaled_by(options.random_noise_multiplier)),
    ]
    chosen = [rule for is_used, rule in rules if is_used]
    return changed_by(chosen) if chosen else drawn_noise


def make_prepare(options: ObjectiveKeys) -> Prepare:
    """What becomes of the latents first."""
    scalings: list[tuple[object, Scaling]] = [
        (options.standardize_latents, scaling.standardized),
        (options.adaptive_scaling_factor, scaling.of_unit_deviation),
        (options.latent_multiplier != 1, scaling.multiplied(options.latent_multiplier)),
    ]
    chosen = [scale for is_used, scale in scalings if is_used]
    return prepared_by(chosen) if chosen else as_it_is
