"""Keys of cached rows: 16 bytes each, made of what a row depends on; many of them are an array, uint64 [n, 2]."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

KEY_BYTES = 16
HALF = np.dtype("<u8")
"""Half a key; the same bytes on every machine."""


def key_for(**parts: Any) -> bytes:
    """A hash over everything that something depends on, given as plain JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def combine(content: bytes, view: bytes) -> bytes:
    """The key of a content seen in one way: their XOR, so that for many contents it is one operation on an array."""
    assert len(content) == len(view) == KEY_BYTES
    return (int.from_bytes(content, "little") ^ int.from_bytes(view, "little")).to_bytes(KEY_BYTES, "little")


def as_array(keys: Iterable[bytes]) -> np.ndarray:
    """Keys as an array, uint64 [n, 2]; `tobytes()` of a row of it is the key again."""
    listed = list(keys)
    assert all(len(key) == KEY_BYTES for key in listed), "a key has 16 bytes"
    return np.frombuffer(b"".join(listed), HALF).reshape(-1, 2)
