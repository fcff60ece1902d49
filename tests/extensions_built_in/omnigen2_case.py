"""OmniGen2 for the contract test. diffusers has no pipeline for it, so all that compares with one is left out."""

from __future__ import annotations

from family_subject import Case

from extensions_built_in.omnigen2.tiny import save_tiny

NO_PIPELINE = "diffusers has no OmniGen2 pipeline"
SKIPS = dict.fromkeys(("encode_image", "encode_prompt", "parity", "lora_file"), NO_PIPELINE)
REFINED = {"model_kwargs": {"use_image_refiner": True}}

CASES: dict[str, Case] = {
    "omnigen2": Case("omnigen2", save_tiny, guidance=4.0, skips=SKIPS),
    "omnigen2-references": Case("omnigen2", save_tiny, guidance=4.0, model=REFINED, images=2, skips=SKIPS),
}
