"""Sampled videos as mp4 files: H.264, which every player shows, through PyAV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from toolkit.atomic import atomic_path

QUALITY = "17"
"""Constant rate factor of x264; below 18 no loss is seen."""


def save_mp4(frames: Sequence[Image.Image], fps: int, path: Path, metadata: Mapping[str, Any]) -> Path:
    """Write frames of equal, even size; `metadata` goes into the comment."""
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as file:
        file.metadata["comment"] = json.dumps(dict(metadata))
        stream: Any = file.add_stream("libx264", rate=fps, options={"crf": QUALITY})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode(None))
    return path
