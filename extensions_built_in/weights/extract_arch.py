"""Which family a checkpoint belongs to, from the files that are here: no torch, no network."""

from __future__ import annotations

from pathlib import Path

from toolkit.config.embedded import EMBEDDED
from toolkit.models.hub import Root
from toolkit.models.recognize import recognize
from toolkit.networks.keys.family import load_families
from toolkit.networks.keys.summary import read_file_header

SIGNS = (
    ("label_emb.0.0.weight", "sdxl"),
    ("add_embedding.linear_1.weight", "sdxl"),
    ("distilled_guidance_layer.", "chroma"),
    ("single_blocks.0.linear1.weight", "flux"),
    ("single_transformer_blocks.0.proj_mlp.weight", "flux"),
)
"""(part of a tensor's name, arch), the first one that is found counts."""
WIDTHS = {768: "sd1", 1024: "sd2"}
"""Width of the text that a U-Net attends to -> arch."""


def guess_arch(name: str) -> str | None:
    """The arch of a checkpoint by its contents, or of a Hub name that is a family's example; None: not told."""
    if Path(name).expanduser().is_file():
        return _of_file(Path(name).expanduser())
    families, _ = load_families()
    if not name.startswith(EMBEDDED) and Root(name).folder is None:
        return next((arch for arch, family in families.items() if family.example == name), None)
    try:
        return recognize(name, families)
    except ValueError:
        return None


def _of_file(file: Path) -> str | None:
    try:
        tensors, _ = read_file_header(file)
    except ValueError:
        return None
    for sign, arch in SIGNS:
        if any(sign in name for name in tensors):
            return arch
    seen = next((entry["shape"] for name, entry in tensors.items() if name.endswith("attn2.to_k.weight")), [0, 0])
    return WIDTHS.get(seen[-1])
