"""What tests of the data and of the training share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

STEP = 4
"""Gray levels between two frames, so that a frame's number can be read off it."""
Film = Callable[..., Path]


@pytest.fixture
def film() -> Film:
    """Writes a video, `film(path, frames, fps=24, size=(32, 24))`: frame n is gray of level 4 n, its left black."""
    import av
    import numpy as np

    def write(path: Path, num_frames: int, fps: int = 24, size: tuple[int, int] = (32, 24), gop: int = 8) -> Path:
        codec = {".avi": "ffv1", ".webm": "libvpx-vp9"}.get(path.suffix, "libx264")
        options = {"ffv1": {}, "libvpx-vp9": {"lossless": "1"}, "libx264": {"qp": "0"}}[codec]
        head = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(path, "w", options=head) as container:
            stream = container.add_stream(codec, rate=fps, options=options)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv444p"
            stream.codec_context.gop_size = gop
            for number in range(num_frames):
                pixels = np.full((size[1], size[0], 3), STEP * number, np.uint8)
                pixels[:, :8] = 0
                for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
        return path

    return write
