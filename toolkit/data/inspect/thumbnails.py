"""Small pictures for a page, as data that needs no file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from toolkit.data.inspect.facts import Picture
from toolkit.data.inspect.pictures import in_threads, picture_of
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.records import Record

SIDE = 176
QUALITY = 55


def thumbnails(pictures: Iterable[Picture]) -> dict[Picture, str]:
    """`data:` addresses of small copies; none for a picture that cannot be read."""
    every = list(dict.fromkeys(pictures))
    made = zip(every, in_threads(_thumbnail, every), strict=True)
    return {picture: address for picture, address in made if address}


def _thumbnail(picture: Picture) -> str:
    record = Record(Path(picture.path), picture.name, picture.width, picture.height, part=picture.part)
    try:
        if picture.is_video:
            from toolkit.data.pictures.video import read_clip, read_frames

            found = read_clip(record.path, record.part)
            assert found is not None, "it was a video when it was scanned"
            image = next(read_frames(record.path, found[1], (0.0,), part=record.part))
        else:
            image = picture_of(record, (SIDE, SIDE))
    except BrokenImage:
        return ""
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
