"""Which frames of a video are trained, and at which moments of it they are taken. Pure arithmetic."""

from dataclasses import dataclass
from math import floor

SLACK = 0.01
"""Frames by which the length in a file's header may fall short."""


@dataclass(frozen=True, slots=True)
class Clip:
    """The length and speed of a video file."""

    last_s: float
    """When its last frame begins; the first one does at 0."""
    fps: float

    @property
    def num_frames(self) -> int:
        """How many frames it has, at an even pace."""
        return round(self.last_s * self.fps) + 1


@dataclass(frozen=True, slots=True)
class FrameRule:
    """How many frames are taken from a video, and which."""

    num_frames: int
    """As many as the model takes: see `snap`."""
    stride: int
    """Frames per latent frame."""
    fps: float = 24.0
    shrink: bool = True
    """Spread the frames over the whole video; else take them at `fps`, from a moment that is drawn once."""
    auto: bool = False
    """As many frames as the video has at `fps`, whatever `num_frames` is."""
    trim_tail: bool = True
    """With `auto`: leave out the end that does not fill a latent frame; else the frames spread over the whole."""

    def count(self, clip: Clip | None) -> int:
        """Number of frames that are trained; a still picture (no clip) is one frame."""
        if clip is None:
            return 1
        return snap(self._fitting(clip), self.stride) if self.auto else self.num_frames

    def times(self, clip: Clip, draw: float = 0.0) -> tuple[float, ...]:
        """The moments of the frames in seconds, ascending; `draw` in [0, 1) places a part within the whole."""
        count = self.count(clip)
        if self._is_spread(clip):
            step, start = clip.last_s / max(1, count - 1), 0.0
        else:
            step = 1 / self.fps
            start = 0.0 if self.auto else draw * max(0.0, clip.last_s - (count - 1) * step)
        return tuple(round(start + index * step, 6) for index in range(count))

    def rate(self, clip: Clip | None) -> float:
        """Frames per second among the frames that are taken."""
        if clip is None or not self._is_spread(clip) or clip.last_s == 0:
            return self.fps
        return (self.count(clip) - 1) / clip.last_s or self.fps

    def repeats_frames(self, clip: Clip) -> bool:
        """Whether the video has too few frames, so that some are taken twice."""
        if self._is_spread(clip):
            return self.count(clip) > clip.num_frames
        return clip.fps < self.fps * (1 - SLACK)

    def _is_spread(self, clip: Clip) -> bool:
        if self.auto:
            return not self.trim_tail
        # what is too short at this speed is stretched
        return self.shrink or self._fitting(clip) < self.num_frames

    def _fitting(self, clip: Clip) -> int:
        """How many frames at `fps` the video is long enough for."""
        return floor(clip.last_s * self.fps + SLACK) + 1


def snap(count: int, stride: int) -> int:
    """The largest number of frames up to `count` that a model takes: k * stride + 1."""
    return (max(1, count) - 1) // stride * stride + 1
