"""Copies and look-alikes: found where they are, not where they are not, and quickly among many."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from toolkit.data.inspect import inspect_folder
from toolkit.data.inspect.hashes import NEAR, distance, near_groups, perceptual_hash


def photo(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Soft shapes with grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 255, (7, 9, 3), dtype=np.uint8)).resize((width, height), 3)
    grain = rng.integers(-12, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(soft).astype(int) + grain, 0, 255).astype(np.uint8))


def test_copies_are_found_and_others_are_not(tmp_path: Path) -> None:
    for seed in range(12):
        photo(seed).save(tmp_path / f"{seed:02}.png")
    picture = photo(3)
    picture.resize((150, 112)).save(tmp_path / "03_small.png")
    picture.save(tmp_path / "03_q30.jpg", quality=30)
    ImageEnhance.Brightness(picture).enhance(1.1).save(tmp_path / "03_bright.webp")
    (tmp_path / "05_copy.png").write_bytes((tmp_path / "05.png").read_bytes())
    found = inspect_folder(tmp_path, (64,))
    assert [[one.name for one in group] for group in found.exact_duplicates] == [["05.png", "05_copy.png"]]
    assert [{one.picture.name for one in group} for group in found.near_duplicates] == [
        {"03.png", "03_small.png", "03_q30.jpg", "03_bright.webp"}
    ]
    group = found.near_duplicates[0]
    assert group[0].distance == 0 and all(one.distance <= 2 * NEAR for one in group)


def test_files_of_equal_length_are_no_copies(tmp_path: Path) -> None:
    for value in (10, 200):
        Image.new("RGB", (64, 64), (value, 0, 0)).save(tmp_path / f"{value}.bmp")
    found = inspect_folder(tmp_path, (64,))
    # of one color each: they look like every other such picture, which says nothing
    assert not found.exact_duplicates and not found.near_duplicates


def test_the_hash_stays_with_the_look() -> None:
    hashes = [perceptual_hash(photo(seed)) for seed in range(40)]
    copies = [perceptual_hash(photo(seed).resize((97, 61))) for seed in range(40)]
    assert max(distance(one, copy) for one, copy in zip(hashes, copies, strict=True)) <= NEAR
    others = [distance(one, other) for place, one in enumerate(hashes) for other in hashes[:place]]
    assert min(others) > 2 * NEAR
    assert perceptual_hash(Image.new("L", (50, 50), 77)) == 0


@pytest.mark.parametrize("most", [0, 3, NEAR])
def test_groups_are_those_of_comparing_every_pair(most: int) -> None:
    rng = np.random.default_rng(0)
    seeds = [int.from_bytes(rng.bytes(8), "big") for _ in range(60)]
    hashes = [0, 0, 1, *seeds]
    for _ in range(240):
        changed = seeds[rng.integers(60)]
        for bit in rng.integers(0, 64, rng.integers(0, 10)):
            changed ^= 1 << int(bit)
        hashes.append(changed)
    roots = list(range(len(hashes)))
    for one in range(len(hashes)):
        for other in range(one):
            if hashes[one] and hashes[other] and distance(hashes[one], hashes[other]) <= most:
                old, new = roots[one], roots[other]
                roots = [new if root == old else root for root in roots]
    expected = {tuple(place for place in range(len(hashes)) if roots[place] == root) for root in roots}
    assert {tuple(group) for group in near_groups(hashes, most)} == {group for group in expected if len(group) > 1}


def test_a_hundred_thousand_hashes_take_seconds_not_minutes() -> None:
    hashes = np.random.default_rng(1).integers(1, 2**63, 100_000, dtype=np.int64).astype(np.uint64)
    hashes[50_000] = hashes[10] ^ np.uint64(0b1011)
    # a folder of frames: very many that are alike
    hashes[60_000:64_000] = hashes[60_000] ^ (np.uint64(1) << np.arange(4000, dtype=np.uint64) % np.uint64(13))
    begin = time.monotonic()
    groups = near_groups(hashes.tolist())
    assert time.monotonic() - begin < 20
    assert sorted(map(len, groups)) == [2, 4000]
    assert [10, 50_000] in groups
