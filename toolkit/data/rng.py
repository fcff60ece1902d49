"""Random streams: one per (seed, epoch, sample, purpose), so that nothing depends on workers or on a restart."""

import hashlib
import random


def seed_for(seed: int, epoch: int, sample_id: str, purpose: str) -> int:
    """A 63-bit seed that is the same on every machine and Python version."""
    # 63 bits, so that it fits torch.Generator.manual_seed and a signed column
    text = f"{seed}\n{epoch}\n{purpose}\n{sample_id}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def stream(seed: int, epoch: int, sample_id: str, purpose: str) -> random.Random:
    """A generator of its own for one purpose of one sample in one epoch."""
    return random.Random(seed_for(seed, epoch, sample_id, purpose))
