"""The name of a picture as a caption: endings, separators and counters are taken out. Pure."""

import re
from urllib.parse import unquote

from toolkit.config.sections.dataset import ANIMATION_ENDINGS, IMAGE_ENDINGS, VIDEO_ENDINGS

ENDINGS = IMAGE_ENDINGS | ANIMATION_ENDINGS | VIDEO_ENDINGS | {".tif", ".tiff", ".heic", ".jfif", ".txt"}
_ENDING = re.compile(
    rf"(?:{'|'.join(re.escape(ending) for ending in sorted(ENDINGS, key=len, reverse=True))})\s*$", re.I
)
_COPY = re.compile(r"[\s_-]+-?\s*(?:copy|kopie|copie)$", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"[\s_-]*[(\[]\d+[)\]]$")
# a number after a sign is a counter, unless it is a year; after a space only with a zero in front
_COUNTER = re.compile(r"(?:[_+-]+(?!(?:19|20)\d\d$)\d+|[\s.]+0\d+)$")
_PREFIXES = "img image dsc dscf dscn p pxl mvimg gopr dji sam cimg imag pict vid mov wp screenshot photo foto untitled"
# what cameras and telephones call their pictures: a word of theirs, a number or date, perhaps a note behind it
_CAMERA = re.compile(
    rf"(?:{_PREFIXES.replace(' ', '|')})?[\s_.~-]*\d[\s\d_.,~-]*"
    r"(?:at|am|pm|ms|mp|burst|portrait|wa|hdr|edit(?:ed)?|e|x)?[\s\d_.~-]*",
    re.IGNORECASE,
)
_HASH = re.compile(r"(?=[0-9a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]{4,})*", re.IGNORECASE)


def caption_of(name: str) -> str:
    """`a_red%20car-(12).jpg.jpg` -> `a red car`; "" for a name that a camera or a program gave (`IMG_1234.jpg`).

    Where a name has spaces, hyphens between letters belong to words (`a blue t-shirt.png`); otherwise they separate.
    """
    stem = _without_endings(_decoded(name))
    if _CAMERA.fullmatch(stem) or _HASH.fullmatch(stem) or stem.lower() in _PREFIXES.split():
        return ""
    stem = _without_counters(stem)
    text = re.sub(r"_+", " ", stem)
    if " " not in stem:
        text = text.replace("-", " ")
    text = text.replace("+", " ")
    text = re.sub(r"(?<!\w)-+|-+(?!\w)", " ", text)
    # the point of a number stays: 1.5
    text = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", text)
    text = re.sub(r"\s+", " ", text).strip(" ,")
    return text if any(sign.isalpha() for sign in text) else ""


def _decoded(name: str) -> str:
    """With `%20` and the like as what they stand for, where that is text."""
    try:
        return unquote(name, errors="strict")
    except UnicodeDecodeError:
        return name


def _without_endings(name: str) -> str:
    """Without the ending, and without one before it: `a.jpg.jpg`."""
    stem = name.strip()
    while (shorter := _ENDING.sub("", stem)) != stem and shorter.strip():
        stem = shorter.strip()
    return stem


def _without_counters(stem: str) -> str:
    """Without ` (12)`, `_0001`, ` - Copy` at the end, in any order."""
    while True:
        shorter = stem
        for pattern in (_COPY, _IN_BRACKETS, _COUNTER):
            shorter = pattern.sub("", shorter).rstrip()
        if shorter == stem or not shorter:
            return stem
        stem = shorter
