"""How a source is read: what the keys of a data set say about it, and where an index or unpacked pictures are kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.data.scanning.scan import Scan

IMAGE_COLUMNS = ("file_name", "path", "image", "image_path", "filename", "media_path")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
SHORT_COLUMNS = ("caption_short", "short_caption")


@dataclass(frozen=True)
class Reading:
    """What a user may say about a source."""

    caption_ext: str = ".txt"
    """Ending of captions beside the pictures, or `filename`."""
    strict: bool = False
    """A picture that cannot be read is an error."""
    num_workers: int = 8
    videos: bool = False
    without: tuple[Path, ...] = ()
    """Folders that are no part of the data set."""
    image_column: str | None = None
    """Which column names the picture; None: the first of the usual names."""
    caption_column: str | None = None
    index: Path | None = None
    """Folder where is kept what was read, for the next start."""
    cache: Path | None = None
    """Folder where pictures are unpacked that are no files of their own."""

    @property
    def image_columns(self) -> tuple[str, ...]:
        """Columns that may name the picture, in the order in which they are looked for."""
        return (self.image_column,) if self.image_column else IMAGE_COLUMNS

    @property
    def caption_columns(self) -> tuple[str, ...]:
        """Columns that may hold the caption."""
        return (self.caption_column,) if self.caption_column else CAPTION_COLUMNS


class Source(Protocol):
    """A data set that is not a plain folder."""

    def scan(self, reading: Reading) -> Scan:
        """Its records, sorted by name, and everything that is wrong with it."""
        ...
