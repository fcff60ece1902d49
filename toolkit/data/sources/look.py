"""The pictures that the rows of a source name are looked at in parallel: sizes, lengths, captions beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from toolkit.config.sections.dataset import VIDEO_ENDINGS
from toolkit.data.bucket import Size
from toolkit.data.frames import Clip
from toolkit.data.pictures.image import BrokenImage, read_size
from toolkit.data.records import Part
from toolkit.data.scanning.scan import FROM_FILE_NAME
from toolkit.data.scanning.waiting import Threads
from toolkit.data.sources.reading import Reading
from toolkit.data.sources.rows import SEEN, STATED, STEP, Place, places, seen_schema

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
AT_ONCE = 256
"""So many files are looked at by one thread in one go."""


def look(rows: pa.Table, place: Place, reading: Reading, known: pa.Table | None = None) -> pa.Table:
    """The rows with the sizes of their pictures, or why a picture cannot be read, and with captions beside them.

    `known` is what was seen before: a picture whose file has the same size and time since then is not opened.
    """
    import pyarrow as pa

    schema = seen_schema()
    known = schema.empty_table() if known is None else known
    before = places(rows, known)
    tables, start = [schema.empty_table()], 0
    with Threads(reading.num_workers) as threads:
        for batch in rows.to_batches(max_chunksize=STEP):
            stamps = _stamps(batch, place, threads)
            same = _same(stamps, known, before[start : start + len(batch)])
            is_known = same["broken"].is_valid().to_numpy(zero_copy_only=False)
            # a caption that may lie beside the picture is looked for anew
            is_settled = is_known & batch["caption"].is_valid().to_numpy(zero_copy_only=False)
            open_rows = pa.table({**dict(zip(STATED, batch.columns, strict=True)), **same})
            told = _parts(open_rows.filter(~is_settled).to_pylist())
            looked_at = threads.map(lambda rows: [_look(row, place, reading) for row in rows], told, len)
            fresh = pa.Table.from_pylist(list(chain.from_iterable(looked_at)), schema)
            order = np.argsort(np.concatenate([np.flatnonzero(~is_settled), np.flatnonzero(is_settled)]))
            tables.append(pa.concat_tables([fresh, open_rows.filter(is_settled).cast(schema)]).take(order))
            start += len(batch)
    return pa.concat_tables(tables)


def _parts(rows: Sequence[T]) -> list[tuple[Sequence[T]]]:
    """The rows in parts that are given to one thread."""
    return [(rows[start : start + AT_ONCE],) for start in range(0, len(rows), AT_ONCE)]


def _stamps(rows: pa.RecordBatch, place: Place, threads: Threads) -> np.ndarray:
    """int64 [N, 2]: size and time of the files, or of the archives that they lie in; -1 for what is not there."""
    pairs = list(zip(rows["name"].to_pylist(), rows["archive"].to_pylist(), strict=True))
    found = threads.map(lambda part: _stat(part, place), _parts(pairs), len)
    return np.concatenate([np.zeros((0, 2), np.int64), *found])


def _stat(pairs: Sequence[tuple[str, int]], place: Place) -> np.ndarray:
    stamps, folder = np.full((len(pairs), 2), -1, np.int64), str(place.folder)
    archives = [archive.stat() for archive in place.archives]
    for at, (name, archive) in enumerate(pairs):
        try:
            stat = archives[archive] if archive >= 0 else os.stat(os.path.join(folder, name))
        except (OSError, ValueError):
            continue
        stamps[at] = stat.st_size, stat.st_mtime_ns
    return stamps


def _same(stamps: np.ndarray, known: pa.Table, before: np.ndarray) -> dict[str, pa.Array]:
    """What was seen of files that are still the same; nulls for the others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    seen = known.select(SEEN).take(pa.array(before, mask=before < 0)).combine_chunks()
    is_same = (seen["bytes"].fill_null(-2).to_numpy() == stamps[:, 0]) & (
        seen["mtime_ns"].fill_null(-2).to_numpy() == stamps[:, 1]
    )
    is_same &= pc.equal(seen["broken"], "").fill_null(False).to_numpy()
    columns = {name: pc.if_else(pa.array(is_same), seen[name], pa.scalar(None, seen[name].type)) for name in SEEN}
    columns["bytes"], columns["mtime_ns"] = pa.array(stamps[:, 0]), pa.array(stamps[:, 1])
    return columns


def _look(row: dict[str, Any], place: Place, reading: Reading) -> dict[str, Any]:
    """A row with what its picture and the file beside it tell."""
    path = place.path_of(row)
    part = place.part_of(row)
    row |= {"broken": "", "remark": "", "is_beside": row["caption"] is None}
    if part and not part[1]:
        return row | {"broken": "empty file", "width": 0, "height": 0}
    if row["width"] is None:
        try:
            (row["width"], row["height"]), clip = _size(path, part, row["name"], reading.videos)
        except BrokenImage as error:
            return row | {"broken": error.reason, "width": 0, "height": 0}
        if clip:
            row["last_s"], row["fps"] = clip.last_s, clip.fps
    if row["is_beside"]:
        picture = Path(row["name"]) if part else path
        row["caption"], row["remark"] = _caption_beside(picture, reading.caption_ext, part is not None)
    return row


def _size(path: Path, part: Part | None, name: str, videos: bool) -> tuple[Size, Clip | None]:
    is_video = PurePosixPath(name).suffix.lower() in VIDEO_ENDINGS
    if is_video and not videos:
        raise BrokenImage(path, "is a video (videos need num_frames)")
    # first, because FFmpeg has less to say about a broken picture
    size = (0, 0) if is_video else read_size(path, part)
    if videos:
        from toolkit.data.pictures.video import read_clip

        if found := read_clip(path, part):
            return found
    return size, None


def _caption_beside(picture: Path, caption_ext: str, is_packed: bool) -> tuple[str | None, str]:
    """The caption of a picture whose row has none, and what is wrong with it."""
    if caption_ext == FROM_FILE_NAME:
        return picture.stem.replace("_", " ").strip() or None, ""
    if is_packed:
        return None, ""
    file = picture.with_name(f"{picture.stem}.{caption_ext.lstrip('.')}")
    try:
        return file.read_text(encoding="utf-8-sig").strip() or None, ""
    except FileNotFoundError:
        return None, ""
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start})"
    except OSError as error:
        reason = error.strerror or str(error)
    return None, f"{file}: {reason}; the picture counts as having no caption"
