"""A hash of what a picture looks like, and which of many such hashes are near each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

SIDE = 32
KEPT = 8
FLAT = 1.0
"""A picture without a coefficient above this is of one color; it looks like every other such picture."""
NEAR = 6
"""Bits of 64 that may differ. Scaled and recompressed copies differ by 0 to 4."""
BAND = 16
CHUNK = 1 << 20
ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
COSINES = np.cos(np.pi / SIDE * np.outer(np.arange(KEPT), np.arange(SIDE) + 0.5))


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which low frequencies of a picture are above their median; 0 for a picture of one color.

    The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010), 3.1.
    """
    gray = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    waves = (COSINES @ gray @ COSINES.T * (2 / SIDE)).reshape(-1)
    # the mean says how bright a picture is and not what it shows
    waves[0] = 0
    if np.abs(waves).max() < FLAT:
        return 0
    bits = waves > np.median(waves)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_groups(hashes: Sequence[int], most: int = NEAR) -> list[list[int]]:
    """Places of hashes that are within `most` bits of another of their group; hash 0 (unknown) is in none."""
    every = np.array(hashes, np.uint64)
    places = np.flatnonzero(every)
    known, where = np.unique(every[places], return_inverse=True)
    roots = np.arange(len(known))
    for left, right in _near_pairs(known, most):
        _join(roots, left, right)
    groups: dict[int, list[int]] = {}
    for place, root in zip(places.tolist(), roots[where.reshape(-1)].tolist(), strict=True):
        groups.setdefault(root, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def distance(one: int, other: int) -> int:
    """How many bits differ."""
    return bin(one ^ other).count("1")


def _near_pairs(hashes: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places within `most` bits of each other, by multi-index hashing (Norouzi, Punjani, Fleet, 2012).

    Of four bands of 16 bits, one differs by at most a quarter of the bits that differ in all; so every hash is compared
    to those alone that have a band like it, or one bit beside it.
    """
    assert most < 2 * 64 // BAND, "two bits may differ in every band then, which is not searched"
    for shift in range(0, 64, BAND):
        band = ((hashes >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        for change in (0, *(1 << bit for bit in range(BAND))):
            starts = np.searchsorted(ordered, band ^ change, "left")
            counts = np.searchsorted(ordered, band ^ change, "right") - starts
            yield from _pairs_of(hashes, order, starts, counts, most)


def _pairs_of(
    hashes: np.ndarray, order: np.ndarray, starts: np.ndarray, counts: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The near ones among each hash and the `counts` places from `starts` on in `order`, some at a time."""
    ends = np.cumsum(counts)
    first = 0
    while first < len(hashes):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + CHUNK, "right")))
        left = np.repeat(np.arange(first, last), counts[first:last])
        steps = np.arange(len(left)) - np.repeat(ends[first:last] - counts[first:last] - done, counts[first:last])
        right = order[starts[left] + steps]
        left, right = left[right > left], right[right > left]
        bits = (hashes[left] ^ hashes[right]).view(np.uint8).reshape(-1, 8)
        near = ONES[bits].sum(axis=1) <= most
        if near.any():
            yield left[near], right[near]
        first = last


def _join(roots: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Put the two of every pair into one group; a group's root is its smallest place."""
    while True:
        one, other = roots[left], roots[right]
        if (one == other).all():
            return
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while (roots != roots[roots]).any():
            roots[:] = roots[roots]
