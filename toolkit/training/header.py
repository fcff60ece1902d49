"""The header of saved weights: what readers of LoRA files look for, and what it takes to make the file again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def header(
    *,
    name: str,
    step: int,
    epoch: int,
    version: str,
    base_version: str,
    base_model: str,
    config_hash: str,
    network: Mapping[str, str],
    trigger: str | None,
    meta: Mapping[str, Any],
) -> dict[str, str]:
    """All values are strings, as safetensors wants them; `meta` entries that are not strings are JSON."""
    entries: dict[str, Any] = {
        "software": {"name": "aitk", "version": version},
        "training_info": {"step": step, "epoch": epoch},
        "ss_base_model_version": base_version,
        "ss_sd_model_name": base_model,
        "ss_output_name": name,
        "ss_steps": str(step),
        "base_model": base_model,
        "config_hash": config_hash,
        **network,
    }
    if trigger:
        entries["ss_tag_frequency"] = {f"1_{trigger}": {trigger: 1}}
    entries.update(meta)
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in entries.items()}


def text_hash(text: str) -> str:
    """Short digest of a text, such as the resolved config."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
