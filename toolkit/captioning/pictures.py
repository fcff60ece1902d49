"""The pictures of a folder, opened ahead in threads and scaled down."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from toolkit.data.pictures.image import BrokenImage, open_image, read_size
from toolkit.data.scanning.scan import visible_files

Opened = tuple[Path, Image.Image | BrokenImage]


def find_pictures(place: Path, endings: Set[str]) -> list[Path]:
    """The pictures below a folder, sorted by name, as a data set would find them; or the one picture named."""
    if place.is_file():
        return [place]
    found = [path for path in visible_files(place) if path.suffix.lower() in endings]
    return sorted(found, key=lambda path: path.relative_to(place).as_posix())


def open_shrunk(path: Path, max_res: int) -> Image.Image:
    """An upright RGB picture with at most about max_res x max_res pixels. Raises BrokenImage."""
    width, height = read_size(path)
    share = min(1.0, max_res / math.sqrt(width * height))
    size = max(1, round(width * share)), max(1, round(height * share))
    image = open_image(path, at_least=size)
    if share == 1.0:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def opened_ahead(paths: Sequence[Path], max_res: int, num_workers: int, ahead: int) -> Iterator[Opened]:
    """Each path with its picture, or with why there is none; at most `ahead` of them wait in memory."""
    waiting: deque[tuple[Path, Future[Image.Image | BrokenImage]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for path in paths:
                waiting.append((path, pool.submit(_opened, path, max_res)))
                if len(waiting) > ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _opened(path: Path, max_res: int) -> Image.Image | BrokenImage:
    try:
        return open_shrunk(path, max_res)
    except BrokenImage as error:
        return error
