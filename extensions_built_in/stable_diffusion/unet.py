"""What the families with a U-Net share: facts of the checkpoint, and which layers are trained."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.models.family import Facts, Trainable, Vocabulary
from toolkit.models.parts import Parts

ATTENTION = r".*\.attentions\.\d+\..*"
CONVOLUTIONS = r".*\.(resnets\.\d+\.conv[12]|downsamplers\.0\.conv|upsamplers\.0\.conv)"
BLOCKS = f"{ATTENTION}|{CONVOLUTIONS}"
"""The transformers, and the 3x3 convolutions around them for networks that adapt those."""

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}


def read_facts(
    parts: Parts,
    base_model: str,
    is_v_pred: bool,
    encoders: Mapping[str, int],
    vocabularies: tuple[Vocabulary, ...],
    numbers: tuple[str, ...] = (),
) -> Facts:
    """Facts of a checkpoint with a U-Net; `encoders`: text encoder -> how many of its layers the U-Net sees."""
    vae, scheduler = parts.source.config("vae"), parts.source.config("scheduler")
    if is_v_pred:
        scheduler = {**scheduler, "prediction_type": "v_prediction"}
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise ValueError(
            f"the checkpoint's prediction_type {kind!r} is not supported (known: {', '.join(PREDICTIONS)})"
        )
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    return Facts(
        channels=vae["latent_channels"],
        stride=stride,
        multiple=stride * 2,
        base_model=base_model,
        prediction=PREDICTIONS[kind],
        scheduler=scheduler,
        trainables=(
            Trainable("unet", blocks=BLOCKS, prefix="unet."),
            *(_text_trainable(name, count) for name, count in encoders.items()),
        ),
        numbers=numbers,
        vocabularies=tuple(vocabulary for vocabulary in vocabularies if vocabulary.encoder in encoders),
    )


def _text_trainable(name: str, num_layers: int) -> Trainable:
    # newer transformers leaves "text_model." out of CLIPTextModel
    layers = "|".join(str(index) for index in range(num_layers))
    blocks = rf"(text_model\.)?encoder\.layers\.({layers})\.(self_attn|mlp)\..*"
    return Trainable(name, blocks=blocks, prefix=f"{name}.")
