"""The headers of changed files: what is carried over, what several files agree on, and what went in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.networks.keys.suffixes import ADAPTER_CONFIG
from toolkit.networks.keys.summary import read_file_header

HASHES = ("sshs_", "modelspec.hash")
"""How the entries begin that are about the bytes of the file that they stand in."""
MERGED = "merged_from"
SIZES = ("ss_network_dim", "ss_network_alpha", "conv_dim", "conv_alpha")


def carried(header: Mapping[str, str]) -> dict[str, str]:
    """The entries that stay true when the tensors change."""
    return {key: value for key, value in header.items() if not key.startswith(HASHES) and key != "format"}


def folded(header: Mapping[str, str], ranks: Sequence[int]) -> dict[str, str]:
    """The header of a network whose alphas are multiplied in, and whose layers have these ranks."""
    entries = {key: value for key, value in carried(header).items() if key not in (ADAPTER_CONFIG, *SIZES)}
    if ranks:
        size = str(ranks[0]) if len(set(ranks)) == 1 else "Dynamic"
        entries |= {"ss_network_dim": size, "ss_network_alpha": size}
    return {**entries, "alpha_folded": "true"}


def agreed(headers: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The entries that are the same in all headers."""
    first, *others = headers
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def merged_from(sources: Sequence[tuple[Path, float]]) -> dict[str, str]:
    """The entry that says which files went in with which weight, and their hashes as far as they tell them."""
    entries = []
    for path, weight in sources:
        entry: dict[str, object] = {"file": path.name, "weight": weight}
        if path.suffix == ".safetensors" and path.is_file():
            known = read_file_header(path)[1].get("sshs_model_hash")
            entry |= {"sshs_model_hash": known} if known else {}
        entries.append(entry)
    return {MERGED: json.dumps(entries)}
