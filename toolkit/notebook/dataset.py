"""`aitk.Dataset`: a data set as training sees it: pictures, captions, buckets, batches, cached latents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from toolkit.config.direct import make_section
from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.cache.folder import cache_root
from toolkit.data.datasets import read_datasets
from toolkit.data.item import Item
from toolkit.data.items import Items
from toolkit.data.lazy import Lazy
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.pictures.pixels import item_pixels
from toolkit.notebook.grid import draw_grid
from toolkit.notebook.problems import note_broken

if TYPE_CHECKING:
    from toolkit.notebook.batches import PixelBatches
    from toolkit.notebook.cached import CachedDataset


NOTEBOOK_RUN = Path("output/notebook")
"""Notebooks share the cache of runs in `output`."""


class Sample(NamedTuple):
    """One sample as it is trained on in one epoch."""

    image: Image.Image
    """Cropped, scaled, mirrored and augmented; of a video, the first frame."""
    caption: str


class Dataset(Lazy[Sample]):
    """One data set, read by the code that training uses.

    `keys` are those of `datasets[]` in a config. `divisor`: sizes are multiples of it; a model decides it in training
    (32 for FLUX.1, 64 for SDXL). What is random about a sample hangs on `seed`, the epoch and the sample alone.

        data = Dataset("photos", resolution=512, trigger_word="m1k4")
        data[0].image, data[0].caption
        data.show()
        for batch in data.dataloader(4): ...
    """

    def __init__(
        self,
        folder: str | Path,
        resolution: int | Sequence[int] = 512,
        *,
        divisor: int = 16,
        seed: int = 42,
        **keys: Any,
    ) -> None:
        """Raises ValueError for a folder without pictures and for keys that do not exist or do not fit together."""
        sizes = resolution if isinstance(resolution, int) else list(resolution)
        self.section = make_section(DatasetSection, {"folder_path": str(folder), "resolution": sizes, **keys})
        self.divisor, self.seed, self.epoch = divisor, seed, 0
        """`epoch`: the one that `[]`, `show` and the next `dataloader` show."""
        cache = cache_root(NOTEBOOK_RUN, os.environ)
        # what runs have learned about the files; no folder is made for it
        index = cache / "index" if cache.is_dir() else None
        self.items: Items = read_datasets(
            [self.section], divisor, 1, self.section.trigger_word, index=index, cache=cache
        )

    @property
    def problems(self) -> list[str]:
        """What was left out or is missing, one line each."""
        return self.items.problems

    def __len__(self) -> int:
        return len(self.items)

    def at(self, place: int) -> Sample:
        """The sample at a place; BrokenImage if its pixels cannot be read."""
        return self._sample(self.items[place])

    def __iter__(self) -> Iterator[Sample]:
        """All samples but those whose pixels are broken, which are named in `problems`."""
        for item in self.items:
            if (sample := self._readable(item)) is not None:
                yield sample

    def __repr__(self) -> str:
        return f"<Dataset {self.section.folder}: {len(self)} samples in {len(self.buckets())} buckets>"

    def buckets(self) -> dict[str, int]:
        """How many samples each size has: {"512x512": 12, ...}, from the smallest to the largest."""
        return self.items.buckets

    def show(self, count: int = 12, columns: int = 6, path: str | Path = "dataset.png") -> Any:
        """The first samples with size and caption: a picture in Jupyter; elsewhere a file, whose path is returned."""
        entries: list[tuple[Image.Image, str, str]] = []
        for item in self.items:
            if len(entries) == max(1, count):
                break
            if (sample := self._readable(item)) is not None:
                entries.append((*sample, f"{item.size[0]} x {item.size[1]}"))
        if not entries:
            raise ValueError("no picture can be shown: " + "; ".join(self.problems))
        grid = draw_grid(entries, columns=columns)
        if is_notebook():
            return grid
        grid.save(path)
        return Path(path)

    def dataloader(self, batch_size: int, num_workers: int = 2) -> PixelBatches:
        """Batches of pixels and captions for one's own loop; every `for` over it is one epoch."""
        from toolkit.notebook.batches import PixelBatches

        return PixelBatches(self.items, batch_size, self.seed, self.epoch, num_workers, self.problems)

    def cache(
        self,
        model: str,
        arch: str,
        *,
        device: str = "auto",
        dtype: str = "fp32",
        folder: str | Path | None = None,
        **model_keys: Any,
    ) -> CachedDataset:
        """The latents and text embeddings of `model`, encoded once and kept on disk; model parts are freed after.

        `arch` is a name that `aitk ls archs` lists, `model_keys` are keys of `model:` in a config. The cache lies in
        `folder`, `$AITK_CACHE` or `output/.aitk_cache`, where training runs find it too.
        """
        from toolkit.notebook.cached import CachedDataset, build_family

        root = Path(folder) if folder else cache_root(NOTEBOOK_RUN, os.environ)
        family, context = build_family(model, arch, device, dtype, self.seed, root, model_keys)
        return CachedDataset(self.section, family, context, root)

    def _readable(self, item: Item) -> Sample | None:
        try:
            return self._sample(item)
        except BrokenImage as error:
            note_broken(error, self.problems)
            return None

    def _sample(self, item: Item) -> Sample:
        pixels = item_pixels(item, self.seed, self.epoch)
        frame = pixels if pixels.ndim == 3 else pixels[0]
        return Sample(Image.fromarray(frame), item.text(self.seed, self.epoch))


def is_notebook() -> bool:
    """Whether pictures that a cell returns are shown."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and shell.__class__.__name__ == "ZMQInteractiveShell"
