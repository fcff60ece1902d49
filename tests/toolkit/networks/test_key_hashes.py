"""The hashes in a LoRA file's header."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.networks.keys.hashes import sshs_hashes


def test_hashes_are_those_of_a_file_with_the_training_entries_alone(tmp_path: Path) -> None:
    tensors = {"b.lora_up.weight": torch.randn(512, 512), "a.lora_down.weight": torch.randn(512, 512).half()}
    found = sshs_hashes(tensors, {"ss_steps": "4", "format": "pt"})
    save_file(tensors, tmp_path / "x.safetensors", {"ss_steps": "4"})
    data = (tmp_path / "x.safetensors").read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    legacy = hashlib.sha256(data[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert found == {"sshs_model_hash": hashlib.sha256(body).hexdigest(), "sshs_legacy_hash": legacy}


def test_the_model_hash_does_not_follow_the_header() -> None:
    tensors = {"a": torch.randn(4)}
    one, other = sshs_hashes(tensors, {"ss_a": "1"}), sshs_hashes(tensors, {"ss_a": "22", "other": "x"})
    assert one["sshs_model_hash"] == other["sshs_model_hash"]
    assert one["sshs_model_hash"] != sshs_hashes({"a": tensors["a"] + 1}, {})["sshs_model_hash"]
