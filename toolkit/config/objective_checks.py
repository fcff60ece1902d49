"""What ai-toolkit does otherwise with the keys of times, loss and noise, and what has no effect beside others."""

from collections.abc import Iterator

from toolkit.config.section import Remarked
from toolkit.config.sections.train import TrainSection

DIFFERENCES = {
    "standardize_latents": "to mean 0 and deviation 1 (ai-toolkit to those of pictures in SD's latents)",
    "do_fft_loss": "counts by the sample's weight and where the mask says so (ai-toolkit: everywhere alike)",
}
"""Of switches that are on."""


def compare_objective(train: TrainSection, is_flow: bool) -> Iterator[Remarked]:
    """Notices on values that are read otherwise."""
    for key, text in DIFFERENCES.items():
        if getattr(train, key):
            yield ("train", key), text
    if train.match_noise_norm and is_flow:
        text = "matches the norm of the target (ai-toolkit that of the noise, which this model does not predict)"
        yield ("train", "match_noise_norm"), text
    if not is_flow and (train.t0_loss_target or train.do_fft_loss):
        key = "t0_loss_target" if train.t0_loss_target else "do_fft_loss"
        yield ("train", key), "finds the picture by the model's own schedule (ai-toolkit by that of flow matching)"
    if train.loss_type == "wavelet":
        text = "compares absolute values of coefficients (squares, as in ai-toolkit, are those of loss_type mse)"
        yield ("train", "loss_type"), text
    if train.loss_target == "source":
        text = "compares pictures, all times alike (ai-toolkit divides by their noise, which is `noise` again)"
        yield ("train", "loss_target"), text
    if train.min_snr_gamma and is_flow:
        text = "weighs by min((1 - t)^2, gamma t^2), which is Min-SNR for flow matching (ai-toolkit has none for it)"
        yield ("train", "min_snr_gamma"), text
    if train.max_loss is not None:
        yield ("train", "max_loss"), "limits the loss of each sample (ai-toolkit that of the batch)"
    if train.content_or_style_reg not in (None, train.content_or_style):
        text = f"is used for regularization pictures (ai-toolkit uses content_or_style, {train.content_or_style})"
        yield ("train", "content_or_style_reg"), text
    yield from _without_effect(train)


def _without_effect(train: TrainSection) -> Iterator[Remarked]:
    """Keys that are set, but not used."""
    fields = type(train).model_fields
    if train.huber_c != fields["huber_c"].default and train.loss_type not in ("pseudo_huber", "huber"):
        yield ("train", "huber_c"), "has no effect: loss_type is not pseudo_huber"
    if train.next_sample_timesteps != fields["next_sample_timesteps"].default and train.timestep_type != "next_sample":
        yield ("train", "next_sample_timesteps"), "has no effect: timestep_type is not next_sample"
    if train.do_batch_noise_correction and train.batch_size == 1:
        yield ("train", "do_batch_noise_correction"), "has no effect: a batch has one picture; raise batch_size"
