"""Sizes, aspects, buckets and crops of a data set: what the bucket rule of training makes of every picture."""

from __future__ import annotations

from math import log

import numpy as np

from toolkit.data.bucket import lost
from toolkit.data.inspect.captions import trained_text
from toolkit.data.inspect.facts import AspectFacts, BucketFacts, Crop, CropFacts, Example, SizeFacts, Spread
from toolkit.data.inspect.pictures import Gallery

ASPECTS = (
    (1, 3), (9, 21), (1, 2), (9, 16), (2, 3), (3, 4), (4, 5), (1, 1), (5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (21, 9),
    (3, 1),
)  # fmt: skip
EXAMPLES = 24
"""Pictures that are shown of a bucket."""
WORST = 20
TENTH = 0.1


def size_facts(gallery: Gallery) -> SizeFacts:
    """Sizes as they are in the files."""
    areas = gallery.shapes().prod(axis=1)
    wanted = max((size for dataset in gallery.datasets for size in dataset.resolutions), default=0)
    small = np.flatnonzero(areas < wanted**2).tolist()
    return SizeFacts(
        Spread.of((areas / 1e6).tolist()),
        gallery.picture(int(areas.argmin())) if len(areas) else None,
        gallery.picture(int(areas.argmax())) if len(areas) else None,
        tuple(gallery.picture(index) for index in small),
    )


def aspect_facts(gallery: Gallery) -> tuple[AspectFacts, ...]:
    """How many pictures are nearest to each usual aspect, from upright to wide."""
    shapes = gallery.shapes()
    usual = np.array([log(width / height) for width, height in ASPECTS])
    nearest = np.abs(np.log(shapes[:, 0] / shapes[:, 1])[:, None] - usual).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(ASPECTS))
    return tuple(
        AspectFacts(f"{width}:{height}", int(count))
        for (width, height), count in zip(ASPECTS, counts, strict=True)
        if count
    )


def bucket_facts(gallery: Gallery) -> tuple[BucketFacts, ...]:
    """The table of buckets, from the smallest to the largest; samples of several data sets share them."""
    tables = [size_table(gallery, number) for number in range(len(gallery.datasets))]
    repeats = [_copies(gallery, number) for number in range(len(gallery.datasets))]
    members: dict[tuple[int, int, int, int], list[tuple[int, int, int]]] = {}
    for number, table in enumerate(tables):
        batch_size = gallery.datasets[number].treatment.batch_size
        sizes, where = np.unique(table.reshape(-1, 3), axis=0, return_inverse=True)
        for place, size in enumerate(sizes.tolist()):
            found = np.flatnonzero(where.reshape(-1) == place)
            rows = np.stack(np.divmod(found, table.shape[1]), axis=1).tolist()
            members.setdefault((*size, batch_size), []).extend((number, *row) for row in rows)
    total = sum(repeats[number] for group in members.values() for number, _, _ in group)
    order = sorted(members, key=lambda size: (size[0] * size[1], size[2], size))
    return tuple(_bucket(gallery, size, members[size], repeats, total) for size in order)


def crop_facts(gallery: Gallery) -> CropFacts:
    """What is cut off over all pictures and resolutions, the worst by name."""
    shares: list[np.ndarray] = []
    rows: list[tuple[int, int, list[int]]] = []
    for number, dataset in enumerate(gallery.datasets):
        table = size_table(gallery, number)
        shapes = np.stack([dataset.records.widths, dataset.records.heights], axis=1)
        every = np.concatenate([np.broadcast_to(shapes, (len(table), *shapes.shape)), table[..., :2]], axis=2)
        unique, where = np.unique(every.reshape(-1, 4), axis=0, return_inverse=True)
        each = np.array([lost(width, height, (x, y)) for width, height, x, y in unique.tolist()])
        shares.append(each[where.reshape(-1)])
        rows += [(number, row, size) for sizes in table.tolist() for row, size in enumerate(sizes)]
    every_share = np.concatenate(shares or [np.zeros(0)])
    order = np.argsort(-every_share, kind="stable")[: WORST * len(gallery.datasets) * 4].tolist()
    found = [_crop(gallery, rows[index], float(every_share[index])) for index in order if every_share[index] > 0]
    return CropFacts(
        round(float(every_share.mean()), 4) if len(every_share) else 0.0,
        int((every_share > TENTH).sum()),
        # a small picture has the same size at every resolution
        tuple(dict.fromkeys(found))[:WORST],
    )


def size_table(gallery: Gallery, number: int) -> np.ndarray:
    """int32 [resolutions, records, 3]: width, height and frames of each picture of a data set, repeats left out."""
    dataset = gallery.datasets[number]
    shape = len(dataset.resolutions), len(dataset.records), _copies(gallery, number), 3
    table: np.ndarray = dataset.sizes().reshape(shape)[:, :, 0]
    return table


def _copies(gallery: Gallery, number: int) -> int:
    """How many samples a picture of a data set gives at one resolution."""
    dataset = gallery.datasets[number]
    return len(dataset) // max(1, len(dataset.resolutions) * len(dataset.records))


def _bucket(
    gallery: Gallery,
    size: tuple[int, int, int, int],
    group: list[tuple[int, int, int]],
    repeats: list[int],
    total: int,
) -> BucketFacts:
    width, height, frames, batch_size = size
    samples = sum(repeats[number] for number, _, _ in group)
    batches = -(-samples // batch_size)
    return BucketFacts(
        width,
        height,
        frames,
        batch_size,
        samples,
        round(samples / total, 4),
        batches,
        samples - (batches - 1) * batch_size,
        tuple(_example(gallery, *member, repeats[member[0]]) for member in group[:EXAMPLES]),
        len(group),
    )


def _example(gallery: Gallery, number: int, resolution: int, row: int, copies: int) -> Example:
    dataset = gallery.datasets[number]
    item = dataset[(resolution * len(dataset.records) + row) * copies]
    picture = gallery.picture_in(number, row)
    cropped = round(lost(picture.width, picture.height, item.size), 4)
    box = (round(item.box()[0], 4), round(item.box()[1], 4), round(item.box()[2], 4), round(item.box()[3], 4))
    return Example(picture, box, cropped, trained_text(item.raw_caption, item.treatment.caption))


def _crop(gallery: Gallery, place: tuple[int, int, list[int]], share: float) -> Crop:
    number, row, size = place
    picture = gallery.picture_in(number, row)
    return Crop(picture.name, picture.width, picture.height, f"{size[0]}x{size[1]}", round(share, 4))
