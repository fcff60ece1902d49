"""Random streams: fixed for all time, different for every part of their name."""

from toolkit.data.rng import seed_for, stream


def test_seed_is_the_same_on_every_machine() -> None:
    assert seed_for(42, 3, "0:a/b.png@512#0", "crop") == 8493554318982535634


def test_every_part_matters() -> None:
    base = (1, 2, "a", "noise")
    others = [
        (2, 2, "a", "noise"),
        (1, 3, "a", "noise"),
        (1, 2, "b", "noise"),
        (1, 2, "a", "crop"),
        (12, 2, "a", "noise"),
    ]
    assert len({seed_for(*parts) for parts in [base, *others]}) == 6
    # parts do not run into each other
    assert seed_for(1, 12, "a", "b") != seed_for(11, 2, "a", "b")


def test_fits_a_signed_64_bit_number() -> None:
    seeds = [seed_for(0, epoch, "x", "noise") for epoch in range(500)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_stream_repeats() -> None:
    assert stream(1, 0, "a", "crop").random() == stream(1, 0, "a", "crop").random()
