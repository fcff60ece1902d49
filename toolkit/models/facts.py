"""Facts that most families read alike from the configuration of a checkpoint."""

from __future__ import annotations

from toolkit.models.family import Facts, Trainable
from toolkit.models.source import Source


def transformer_facts(source: Source, base_model: str, blocks: str, cells: int = 2, text_length: int = 0) -> Facts:
    """Facts of a transformer that is trained on the latents of an AutoencoderKL.

    `cells`: pixel sizes of training images are multiples of so many latent cells.
    """
    vae = source.config("vae")
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    return Facts(
        channels=vae["latent_channels"],
        stride=stride,
        multiple=stride * cells,
        base_model=base_model,
        text_length=text_length,
        scheduler=source.config("scheduler"),
        trainables=(Trainable("transformer", blocks=blocks, prefix="transformer."),),
    )


def text_length(source: Source, tokenizer: str, most: int) -> int:
    """How many tokens of a text the network gets: `most`, or as many as the tokenizer makes."""
    return min(most, int(source.config(tokenizer).get("model_max_length", most)))
