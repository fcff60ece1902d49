"""The two hashes by which A1111 and kohya's tools know a LoRA file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

# the old hash of A1111's web UI reads 64 KiB from here
LEGACY_START, LEGACY_END = 0x100000, 0x110000


def sshs_hashes(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> dict[str, str]:
    """Header entries for a file of contiguous `tensors`, as `precalculate_safetensors_hashes` of sd-scripts has them.

    The model hash covers the tensors' bytes alone, so that it stays when the header is edited.
    """
    training = {key: value for key, value in header.items() if key.startswith("ss_")}
    data = memoryview(save(dict(tensors), training))
    start = 8 + int.from_bytes(data[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(data[start:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(data[LEGACY_START:LEGACY_END]).hexdigest()[:8],
    }
