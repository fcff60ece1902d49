"""CogView4 for the contract test: what CogView4Pipeline does around its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family_pipelines import kl_latents
from family_subject import Case
from torch import Tensor

from extensions_built_in.cogview4.tiny import save_tiny


def encode_prompt(pipeline: Any, texts: list[str]) -> Mapping[str, list[Tensor]]:
    """GLM's hidden states, one text at a time: in a batch its padding would depend on the others."""
    found = [pipeline.encode_prompt([text], do_classifier_free_guidance=False)[0] for text in texts]
    return {"text": [text[0] for text in found]}


CASES: dict[str, Case] = {
    "cogview4": Case("cogview4", save_tiny, encode_image=kl_latents, encode_prompt=encode_prompt, sizes=(64, 48))
}
