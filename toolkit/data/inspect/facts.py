"""The facts of an inspection as plain values; the terminal, the JSON and the page show the same ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median

from toolkit.data.bucket import Box
from toolkit.data.records import Part


@dataclass(frozen=True)
class Spread:
    """The range of some numbers; all 0 where there are none."""

    least: float = 0
    middle: float = 0
    """Median."""
    most: float = 0
    mean: float = 0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Spread:
        """The spread of a list."""
        if not len(numbers):
            return cls()
        return cls(*(round(float(value), 4) for value in (min(numbers), median(numbers), max(numbers), mean(numbers))))


@dataclass(frozen=True)
class Picture:
    """One picture or video that can be read."""

    name: str
    """Path below its data set; with several data sets, their folder is in front."""
    path: str
    width: int
    height: int
    is_video: bool = False
    part: Part | None = None
    """Offset and length inside an archive."""


@dataclass(frozen=True)
class SourceFacts:
    """One data set."""

    place: str
    pictures: int
    videos: int
    captions: int
    """Pictures and videos that have one."""
    other_files: dict[str, int]
    """Ending -> files that are neither."""
    lone_captions: tuple[str, ...]
    """Caption files without a picture."""


@dataclass(frozen=True)
class Broken:
    """A file that is left out."""

    name: str
    reason: str
    found_in: str
    """"header" or "pixels"."""


@dataclass(frozen=True)
class Filtered:
    """A readable picture that the keys of its data set leave out."""

    name: str
    width: int
    height: int


@dataclass(frozen=True)
class SizeFacts:
    """Sizes of the pictures as they are in the files."""

    megapixels: Spread
    smallest: Picture | None
    largest: Picture | None
    small: tuple[Picture, ...]
    """Those with fewer pixels than the largest resolution; they are not enlarged."""


@dataclass(frozen=True)
class AspectFacts:
    """The pictures whose aspect is nearest to this one."""

    name: str
    """Width to height: "3:2"."""
    pictures: int


@dataclass(frozen=True)
class Example:
    """A picture of a bucket: which part of it is seen, and the text that it is trained with."""

    picture: Picture
    box: Box
    """Left, top, right and bottom of what is kept, as shares."""
    cropped: float
    """Share that is cut off."""
    caption: str


@dataclass(frozen=True)
class BucketFacts:
    """The samples that are trained at one size."""

    width: int
    height: int
    frames: int
    """0 for a model for pictures."""
    batch_size: int
    samples: int
    share: float
    batches: int
    last_batch: int
    """Samples in the last batch, which may be short."""
    examples: tuple[Example, ...]
    """The first of its pictures; no repeats and mirror images."""
    pictures: int

    @property
    def name(self) -> str:
        """`832x480`, with frames `832x480x81`."""
        return f"{self.width}x{self.height}" + (f"x{self.frames}" if self.frames > 1 else "")


@dataclass(frozen=True)
class Crop:
    """How much of a picture is cut off at one size."""

    name: str
    width: int
    height: int
    bucket: str
    cropped: float


@dataclass(frozen=True)
class CropFacts:
    """What is cut off over all pictures and resolutions."""

    mean: float
    over_tenth: int
    """Pictures that lose more than 10 %."""
    worst: tuple[Crop, ...]


@dataclass(frozen=True)
class TokenFacts:
    """Lengths of the trained texts in the tokens of one text encoder, marks of begin and end included."""

    tokenizer: str
    limit: int | None
    """What the tokenizer's files name as the longest text; None if they name none."""
    tokens: Spread
    too_long: tuple[str, ...]
    """Pictures whose text is cut off."""


@dataclass(frozen=True)
class TriggerFacts:
    """How often the trigger is written in the captions."""

    word: str
    captions_with: int
    captions_without: int
    """There it is put in front."""


@dataclass(frozen=True)
class Count:
    """How many pictures have something."""

    text: str
    pictures: int


@dataclass(frozen=True)
class SameCaption:
    """A caption that several pictures have."""

    text: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class CaptionFacts:
    """The captions as they are written, tokens as they are trained."""

    present: int
    missing: tuple[str, ...]
    """Pictures without a caption."""
    empty: tuple[str, ...]
    unreadable: tuple[Broken, ...]
    """Not UTF-8, or not to be opened."""
    characters: Spread
    words: Spread
    tokens: tuple[TokenFacts, ...]
    triggers: tuple[TriggerFacts, ...]
    common_phrases: tuple[Count, ...]
    """Parts between commas."""
    common_words: tuple[Count, ...]
    duplicates: tuple[SameCaption, ...]


@dataclass(frozen=True)
class Alike:
    """A picture of a group, and how many of 64 bits tell it from the first."""

    picture: Picture
    distance: int


@dataclass(frozen=True)
class Note:
    """Something about files that is worth knowing and no fault."""

    text: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All that is known about a data set, or about those of a job."""

    path: str
    resolutions: tuple[int, ...]
    divisor: int
    pixels_read: bool
    """Without, near duplicates and files with broken pixels are not looked for."""
    sources: tuple[SourceFacts, ...]
    pictures: int
    videos: int
    samples: int
    """Per epoch."""
    batches: int
    broken: tuple[Broken, ...]
    filtered: tuple[Filtered, ...]
    sizes: SizeFacts
    aspects: tuple[AspectFacts, ...]
    buckets: tuple[BucketFacts, ...]
    crops: CropFacts
    captions: CaptionFacts
    exact_duplicates: tuple[tuple[Picture, ...], ...]
    """Files with the same content."""
    near_duplicates: tuple[tuple[Alike, ...], ...]
    """Pictures that look the same; of exact copies only the first is among them."""
    notes: tuple[Note, ...]
    problems: tuple[str, ...]
    """What a run would report, in its words."""
    format: int = 1
    """Grows when a fact changes its name or meaning, not when one is added."""

    def to_json(self) -> str:
        """All facts as JSON text; the names are those of the classes here."""
        return json.dumps(asdict(self), indent=2)
