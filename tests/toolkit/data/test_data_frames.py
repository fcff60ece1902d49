"""Which moments of a video are trained, without any video."""

from __future__ import annotations

import pytest

from toolkit.data.frames import Clip, FrameRule, snap

TWO_SECONDS = Clip(last_s=2.0, fps=16.0)
"""33 frames."""


@pytest.mark.parametrize(
    ("count", "stride", "expected"), [(81, 4, 81), (80, 4, 77), (4, 4, 1), (1, 4, 1), (0, 4, 1), (33, 8, 33), (7, 1, 7)]
)
def test_a_number_of_frames_is_one_more_than_a_multiple(count: int, stride: int, expected: int) -> None:
    assert snap(count, stride) == expected


def test_frames_spread_over_the_whole_video() -> None:
    rule = FrameRule(5, 4)
    assert rule.times(TWO_SECONDS) == (0, 0.5, 1, 1.5, 2)
    assert rule.rate(TWO_SECONDS) == 2
    assert not rule.repeats_frames(TWO_SECONDS)


def test_at_a_rate_a_part_of_the_video_is_taken() -> None:
    rule = FrameRule(9, 4, fps=8, shrink=False)
    assert rule.times(TWO_SECONDS) == tuple(index / 8 for index in range(9))
    assert rule.times(TWO_SECONDS, 0.5)[0] == 0.5 and rule.times(TWO_SECONDS, 0.5)[-1] == 1.5
    assert rule.times(TWO_SECONDS, 0.999999)[-1] == pytest.approx(2, abs=1e-4)
    assert rule.rate(TWO_SECONDS) == 8


def test_what_is_too_short_for_the_rate_is_stretched_and_frames_repeat() -> None:
    rule = FrameRule(41, 4, fps=16, shrink=False)
    times = rule.times(TWO_SECONDS, 0.7)
    assert (len(times), times[0], times[-1]) == (41, 0, 2)
    assert rule.rate(TWO_SECONDS) == 20 and rule.repeats_frames(TWO_SECONDS)
    assert not FrameRule(33, 4, fps=16, shrink=False).repeats_frames(TWO_SECONDS)
    # fast enough for the length, too slow for the rate
    assert FrameRule(33, 4, fps=32, shrink=False).repeats_frames(TWO_SECONDS)
    assert FrameRule(41, 4).repeats_frames(TWO_SECONDS) and not FrameRule(33, 4).repeats_frames(TWO_SECONDS)


@pytest.mark.parametrize(("fps", "count"), [(16, 33), (24, 49), (10, 21), (9, 17), (0.4, 1)])
def test_the_file_decides_how_many_frames_there_are(fps: float, count: int) -> None:
    rule = FrameRule(1, 4, fps=fps, auto=True)
    times = rule.times(TWO_SECONDS, 0.9)
    assert rule.count(TWO_SECONDS) == len(times) == count
    assert times[0] == 0 and times[-1] == pytest.approx((count - 1) / fps, abs=1e-5)
    assert times[-1] <= 2 and rule.rate(TWO_SECONDS) == fps


def test_a_tail_that_does_not_fit_is_cut_or_the_whole_is_sped_up() -> None:
    assert FrameRule(1, 4, fps=9, auto=True).times(TWO_SECONDS)[-1] == pytest.approx(16 / 9, abs=1e-5)
    whole = FrameRule(1, 4, fps=9, auto=True, trim_tail=False)
    assert whole.times(TWO_SECONDS)[-1] == 2 and whole.count(TWO_SECONDS) == 17
    assert whole.rate(TWO_SECONDS) == 8


def test_a_picture_is_one_frame_and_a_single_frame_a_video() -> None:
    assert FrameRule(17, 4).count(None) == 1 and FrameRule(17, 4, fps=10).rate(None) == 10
    single = Clip(0.0, 24.0)
    assert single.num_frames == 1
    assert FrameRule(5, 4).times(single) == (0, 0, 0, 0, 0)
    assert FrameRule(5, 4).rate(single) == 24
    assert FrameRule(1, 4, auto=True).times(single) == (0,)
