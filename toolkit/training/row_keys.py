"""The cache keys of all samples as arrays: what a key is made of is looked at once per kind, not once per sample."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np

from toolkit.data.cache.keys import KEY_BYTES, as_array
from toolkit.data.cache.rows import combine, key_for
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems, Items
from toolkit.data.loader import in_order
from toolkit.data.pictures.image import BrokenImage
from toolkit.data.records import READERS
from toolkit.data.treatment import Treatment

READ_AHEAD = 64
"""So many samples are looked at ahead by each of `READERS`."""
NOTHING = bytes(KEY_BYTES)


class RowKeys:
    """Where the latents of all samples are in a cache.

    A key is the content of the file, how it is seen (size, mirroring, what the keys of its data set say, version),
    where its random numbers come from, if there are any, and who encodes it, XORed. Only samples that have more than
    that (the moments of a video, a mask, a pair) are looked at one by one.
    """

    def __init__(self, data: Items, seed: int, encoder: bytes) -> None:
        """Hashes the files that are not hashed yet; those that cannot be read are in `broken` by their places."""
        self.broken: dict[int, BrokenImage] = {}
        self._kinds, examples = data.views()
        self._base = data.digests()
        self._broken_files(data)
        self._base ^= data.gathered([_draws(items, seed) for items in data.datasets], np.zeros((0, 2), np.uint64))
        self._add_own(data, seed)
        self._counts = np.array([variants(item.treatment) for item in examples], np.int64)
        most = int(self._counts.max(initial=1))
        views = [view_key(item, version % variants(item.treatment)) for item in examples for version in range(most)]
        self._views = (as_array(views) ^ as_array([encoder])).reshape(len(examples), most, 2)

    def _broken_files(self, data: Items) -> None:
        for place in np.flatnonzero((self._base == 0).all(axis=1)).tolist():
            item = data[place]
            try:
                # says why
                self._base[place] = as_array([item.record.digest])[0]
            except OSError as error:
                self.broken[place] = unread(item, error)

    def _add_own(self, data: Items, seed: int) -> None:
        """What samples have beside their own content."""
        with_files = np.array([items.masks is not None or items.pairs is not None for items in data.datasets], bool)
        with_times = np.array([items.treatment.frames is not None for items in data.datasets], bool)
        places = np.flatnonzero((with_files | with_times)[data.places()[0]]).tolist()
        # threads hash the files; nothing else is worth them
        owns = in_order(partial(_own, data, seed), places, READERS if with_files.any() else 0, READ_AHEAD)
        for place, own in zip(places, owns, strict=True):
            if isinstance(own, BrokenImage):
                self.broken.setdefault(place, own)
            else:
                self._base[place] ^= as_array([own])[0]

    def __len__(self) -> int:
        return len(self._base)

    def at(self, places: np.ndarray | Sequence[int], epoch: int) -> np.ndarray:
        """The keys of some samples in an epoch, uint64 [n, 2]."""
        kinds = self._kinds[places]
        return self._base[places] ^ self._views[kinds, epoch % self._counts[kinds]]

    def all(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every version of every sample: keys [n, 2], places [n] and versions [n]."""
        counts = self._counts[self._kinds]
        versions = range(int(counts.max(initial=1)))
        places = [np.flatnonzero(counts > version) for version in versions]
        keys = [self.at(some, version) for some, version in zip(places, versions, strict=True)]
        numbers = np.repeat(np.arange(len(places)), [len(some) for some in places])
        return np.concatenate(keys), np.concatenate(places), numbers

    def leave_out(self, places: Sequence[int]) -> None:
        """Forget some samples, all that are broken among them; those behind them move up."""
        assert self.broken.keys() <= set(places)
        self.broken = {}
        self._base, self._kinds = np.delete(self._base, places, axis=0), np.delete(self._kinds, places)


def variants(treatment: Treatment) -> int:
    """How many versions of a sample are kept."""
    return treatment.num_variants if treatment.is_random else 1


def latent_key(item: Item, seed: int, version: int, encoder: bytes) -> bytes:
    """The key of one sample, as `RowKeys` has it."""
    parts = [view_key(item, version), own_key(item, seed), encoder]
    if item.treatment.is_random:
        parts.append(draw_key(seed, item.id))
    return reduce(combine, parts, item.record.digest)


def view_key(item: Item, version: int) -> bytes:
    """How a file is seen; the middle crop follows from its size, and that from the content."""
    varied = {"version": version} if item.treatment.is_random else {}
    return key_for(**item.treatment.view(), size=item.size, flips=[item.flip_x, item.flip_y], **varied)


def draw_key(seed: int, sample_id: str) -> bytes:
    """Where a sample draws random numbers."""
    text = f"{seed}\n{sample_id}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=KEY_BYTES, person=b"drawn").digest()


def own_key(item: Item, seed: int) -> bytes:
    """The moments of a video, and what belongs to a sample. OSError if a file of it cannot be read."""
    times = item.times(seed)
    parts: dict[str, object] = {
        **({"times": times} if times else {}),
        **({"mask": item.mask.digest.hex()} if item.mask else {}),
        **({"pair": item.pair.digest.hex()} if item.pair else {}),
    }
    return key_for(**parts) if parts else NOTHING


def _draws(items: DatasetItems, seed: int) -> np.ndarray:
    """The `draw_key` of every sample, uint64 [N, 2]; zeros where nothing is drawn."""
    if not items.treatment.is_random:
        return np.zeros((len(items), 2), np.uint64)
    return as_array([draw_key(seed, sample_id) for sample_id in items.ids()])


def _own(data: Items, seed: int, place: int) -> bytes | BrokenImage:
    item = data[place]
    try:
        return own_key(item, seed)
    except OSError as error:
        return unread(item, error)


def unread(item: Item, error: OSError) -> BrokenImage:
    """The error that names the file of a sample that cannot be read."""
    return BrokenImage(error.filename or item.record.path, error.strerror or str(error))
