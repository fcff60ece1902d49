"""One video file, or animated picture, becomes upright RGB frames at the moments that are asked for, in one pass."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from toolkit.config.sections.dataset import VIDEO_ENDINGS
from toolkit.data.bucket import Size
from toolkit.data.frames import Clip
from toolkit.data.pictures.image import BAD_FILE, FORMATS, WHITE, Color, broken, check_size, to_rgb
from toolkit.data.pictures.part import opened
from toolkit.data.records import Part

T = TypeVar("T")
SEEK_FROM_S = 1.0
"""Up to here, decoding from the start is as fast as a jump."""
EVEN_S = 0.002
"""Two frames whose distances differ by less are equally near: some containers round times to milliseconds."""
UNCOUNTED_S = 0.5
"""A video that does not tell how many frames it has may end so much early."""
DEFAULT_DURATION_MS = 100


def read_clip(path: Path, part: Part | None = None) -> tuple[Size, Clip] | None:
    """Width and height as seen, and length, of a video or an animation; None for a still picture.

    Reads the header and the first frame, because only decoders tell how a video is turned.
    """
    try:
        if _is_video(path, part):
            return _read_video(path, part)
        with opened(path, part) as file, Image.open(file, formats=FORMATS) as image:
            if not getattr(image, "is_animated", False):
                return None
            starts = [at for at, _ in _animation(image)]
            return image.size, Clip(starts[-1], (len(starts) - 1) / starts[-1])
    except (*BAD_FILE, av.error.FFmpegError) as error:
        raise broken(path, part, error) from error


def read_frames(
    path: Path,
    clip: Clip,
    times: Sequence[float],
    background: Color = WHITE,
    expected: Size | None = None,
    part: Part | None = None,
) -> Iterator[Image.Image]:
    """The frame nearest to each of the ascending `times`, upright; one that is taken twice comes twice.

    A file whose size is no longer the `expected` one was exchanged since it was scanned and counts as broken, as does
    one that ends before the last time.
    """
    try:
        if _is_video(path, part):
            yield from _video_frames(path, part, clip, times, expected)
            return
        with opened(path, part) as file, Image.open(file, formats=FORMATS) as image:
            check_size(image.size, expected)
            for frame in nearest(_animation(image), times):
                yield to_rgb(frame, background)
    except (*BAD_FILE, av.error.FFmpegError) as error:
        raise broken(path, part, error) from error


def nearest(frames: Iterable[tuple[float, T]], times: Iterable[float]) -> Iterator[T]:
    """Of `frames` (begin, frame), the one nearest to each time, of two the earlier; both ascend."""
    coming = iter(frames)
    before = after = next(coming, None)
    if before is None:
        raise ValueError("holds no frame")
    for time in times:
        while after is not None and after[0] < time:
            before, after = after, next(coming, None)
        is_after = after is not None and after[0] - time < time - before[0] - EVEN_S
        yield after[1] if is_after and after is not None else before[1]


def _is_video(path: Path, part: Part | None) -> bool:
    """Whether FFmpeg is asked: by the name, and in an archive, whose name tells nothing, by the content."""
    if part is None:
        return path.suffix.lower() in VIDEO_ENDINGS
    try:
        with opened(path, part) as file, Image.open(file, formats=FORMATS):
            return False
    except BAD_FILE:
        return True


def _read_video(path: Path, part: Part | None) -> tuple[Size, Clip]:
    with opened(path, part) as file, av.open(file) as container:
        stream = _stream(container)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        first = next(container.decode(stream), None)
        if first is None or not rate:
            raise ValueError("holds no frame" if first is None else "tells no frame rate")
        size, length_s = _seen_size(first, stream), _length(stream)
    return size, Clip(max(0.0, (length_s or _measured(path, part)) - 1 / rate), rate)


def _video_frames(
    path: Path, part: Part | None, clip: Clip, times: Sequence[float], expected: Size | None
) -> Iterator[Image.Image]:
    frames = _decoded(path, part, clip, times[0], expected)
    first = next(frames, None)
    if first is None or first[0] > times[0] + 0.5 / clip.fps:
        # the jump went too far
        frames.close()
        frames = _decoded(path, part, clip, 0.0, expected)
        first = next(frames, None)
    with closing(frames):
        for frame in nearest(chain([first] if first else [], frames), times):
            if frame.is_corrupt:
                raise ValueError("is damaged")
            turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            yield Image.fromarray(np.ascontiguousarray(turned))


def _decoded(
    path: Path, part: Part | None, clip: Clip, from_s: float, expected: Size | None
) -> Generator[tuple[float, av.VideoFrame], None, None]:
    """Frames with their times from somewhere before `from_s` to the end, which must be where the header says."""
    at_s = 0.0
    with opened(path, part) as file, av.open(file) as container:
        stream = _stream(container)
        start_s = float((stream.start_time or 0) * _tick(stream))
        if from_s > SEEK_FROM_S:
            container.seek(int((from_s + start_s) / _tick(stream)), stream=stream)
        for number, frame in enumerate(container.decode(stream)):
            if number == 0:
                check_size(_seen_size(frame, stream), expected)
            at_s = number / clip.fps if frame.time is None else frame.time - start_s
            yield at_s, frame
    missing_s = clip.last_s - at_s
    if missing_s > 1.5 / clip.fps and not _is_whole(path, part, missing_s):
        raise ValueError(f"ends at {at_s:.2f} s; its header says {clip.last_s:.2f} s")


def _stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise ValueError("holds no video")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _tick(stream: VideoStream) -> Fraction:
    """Seconds per unit of the stream's times."""
    if stream.time_base is None:
        raise ValueError("has no clock")
    return stream.time_base


def _seen_size(frame: av.VideoFrame, stream: VideoStream) -> Size:
    """Width and height as players show them: pixels may be oblong, and the picture turned by a quarter."""
    width = round(frame.width * (stream.sample_aspect_ratio or 1))
    return (frame.height, width) if frame.rotation % 180 else (width, frame.height)


def _length(stream: VideoStream) -> float | None:
    """Seconds from the first frame to the end of the last, as the header has it."""
    if stream.duration:
        return float(stream.duration * _tick(stream))
    try:
        # Matroska: 00:00:02.500000000
        hours, minutes, seconds = stream.metadata.get("DURATION", "").split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _measured(path: Path, part: Part | None) -> float:
    """The same by reading the file through, without decoding it."""
    with opened(path, part) as file, av.open(file) as container:
        stream = _stream(container)
        packets = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        tick = _tick(stream)
    if not packets:
        raise ValueError("tells no length")
    return float((max(map(sum, packets)) - min(pts for pts, _ in packets)) * tick)


def _is_whole(path: Path, part: Part | None, missing_s: float) -> bool:
    """Whether a video that ends early is complete: its frames may follow each other at an uneven pace."""
    with opened(path, part) as file, av.open(file) as container:
        stream = _stream(container)
        if not stream.frames:
            return missing_s < UNCOUNTED_S
        return sum(1 for packet in container.demux(stream) if packet.size) >= stream.frames - 1


def _animation(image: Image.Image) -> Iterator[tuple[float, Image.Image]]:
    """The frames of an animated picture with their times."""
    at_ms = 0
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        image.load()
        yield at_ms / 1000, image.copy()
        at_ms += int(image.info.get("duration") or DEFAULT_DURATION_MS)
