"""The size of a still picture from the first bytes of its file; what is unusual is left to Pillow.

It answers only where Pillow would say the same, several times faster, and it never reads a whole file.
"""

from __future__ import annotations

import os
import struct
import zlib

from toolkit.data.bucket import Size

FIRST = 1 << 14
"""So many bytes are read at first, and of a JPEG this often as many again."""
MOST = 1 << 19
LARGEST = 80_000_000
"""Pixels; from about there Pillow warns of a bomb, and later refuses."""
PNG = b"\x89PNG\r\n\x1a\n"
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_NOTES = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"acTL"}
"""Chunks that may say how the picture is turned, or that more frames follow."""
FRAMES = {0xC0, 0xC1, 0xC2}
"""Markers of a JPEG's size: baseline, extended and progressive."""
BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""
ORIENTATION = 0x0112


def quick_size(path: str | os.PathLike[str]) -> Size | None:
    """Width and height as seen; None: ask Pillow."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        return _size(descriptor)
    except (OSError, struct.error, IndexError):
        return None
    finally:
        os.close(descriptor)


def _size(file: int) -> Size | None:
    head = os.read(file, FIRST)
    if head.startswith(b"\xff\xd8"):
        size = _jpeg(file, head)
    elif head.startswith(PNG):
        size = _png(file, head)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        size = _webp(file, head)
    else:
        return None
    return size if size and 0 < size[0] * size[1] < LARGEST else None


def _png(file: int, head: bytes) -> Size | None:
    """Where nothing tells of a rotation or of more frames, up to the last chunk."""
    width, height, depth, color = struct.unpack_from(">IIBB", head, 16)
    checksum = int.from_bytes(head[29:33], "big")
    if head[12:16] != b"IHDR" or depth not in PNG_DEPTHS.get(color, ()) or zlib.crc32(head[12:29]) != checksum:
        return None
    at = 33
    while True:
        chunk = head[at : at + 8]
        if len(chunk) < 8:
            os.lseek(file, at, os.SEEK_SET)
            chunk = os.read(file, 8)
        if len(chunk) < 8 or chunk[4:] == b"IEND":
            return width, height
        if chunk[4:] in PNG_NOTES:
            return None
        at += 12 + int.from_bytes(chunk[:4], "big")


def _jpeg(file: int, head: bytes) -> Size | None:
    """All segments up to the pixels, because the rotation may come after the size."""
    size, turn, at = None, 1, 2
    while True:
        head = _reaching(file, head, at + 4)
        mark, marker = head[at], head[at + 1]
        if mark != 0xFF:
            return None
        if marker == 0xFF or marker in BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:
            break
        length = struct.unpack_from(">H", head, at + 2)[0]
        head = _reaching(file, head, at + 2 + length)
        data = head[at + 4 : at + 2 + length]
        if marker in FRAMES and size is None:
            depth, height, width, layers = struct.unpack_from(">BHHB", data)
            if depth != 8 or layers not in (1, 3, 4):
                return None
            size = width, height
        elif marker == 0xE1:
            found = _turn(data)
            if found is None:
                return None
            turn = found if turn == 1 else turn
        at += 2 + length
    if size is None:
        return None
    return (size[1], size[0]) if turn in (5, 6, 7, 8) else size


def _reaching(file: int, head: bytes, end: int) -> bytes:
    """The first bytes of a file up to `end` at least. Raises IndexError where they are too few or too many."""
    while len(head) < end:
        more = os.read(file, FIRST) if len(head) < MOST else b""
        if not more:
            raise IndexError(end)
        head += more
    return head


def _turn(data: bytes) -> int | None:
    """The orientation in a segment for notes, 1 if it says nothing about it; None if that is not plain to see."""
    if not data.startswith(b"Exif\0\0"):
        return None if b"Orientation" in data else 1
    tiff = data[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for number in range(count):
        tag, kind, amount, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * number)
        if tag == ORIENTATION:
            return int(value) if (kind, amount) == (3, 1) else None
    return 1


def _webp(file: int, head: bytes) -> Size | None:
    """Of a whole file without notes and further frames."""
    if os.fstat(file).st_size < int.from_bytes(head[4:8], "little") + 8:
        return None
    kind, data = head[12:16], head[20:30]
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and not data[0] & 0x0E:
        return int.from_bytes(data[4:7], "little") + 1, int.from_bytes(data[7:10], "little") + 1
    return None
