"""What the data engine costs beside plain loops that do the same, and what it needs for many files and rows.

    python scripts/bench_data.py --quick
    python scripts/bench_data.py --rows 1000000 --files 1000000 --folder /where/there/is/room

Every target is a line with its ratio; the best of several rounds counts, in which the loops that are compared take
turns, so that a busy machine slows both. "CPU" is the time of all cores together, worker processes included. The files
are made in a folder of their own, which is removed at the end. Runs on Linux, whose /proc says what processes use.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import io
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from math import ceil
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageChops

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import read_datasets
from toolkit.data.items import DatasetItems, Items, expand
from toolkit.data.order import Plan, plan
from toolkit.data.pictures.decoding import Decoded, Wish, decode
from toolkit.data.scanning.scan import scan
from toolkit.data.workers import APART_FROM, Workers

T = TypeVar("T")
DIVISOR = 16
BATCH = 8
MEGAPIXELS_12 = ((4000, 3000), (3000, 4000), (4256, 2832))
SMALL = ((256, 192), (192, 256))
LATENT_SIDE = 128
LATENT_SHAPE, TEXT_SHAPE = (16, 32, 32), (77, 768)
WARM_ROWS = 20_000
"""Batches are drawn from so many rows at most (3 GB), which the memory holds."""
MANY_FILES = 100_000
"""Of fewer, memory per image is not judged: what any number of them takes is most of it."""
SPARSE_FROM = 2000
"""So many rows are written without content, so that they need no room."""
FULL = {"rounds": 3, "pictures": 9, "headers": 4000, "latents": 2000, "rows": 100_000, "files": 100_000, "captioned": 1}
QUICK = {"rounds": 2, "pictures": 3, "headers": 1000, "latents": 128, "rows": 10_000, "files": 2000, "captioned": 1}
WHAT = {
    "rounds": "turns of each loop",
    "pictures": "large pictures that are decoded",
    "headers": "files whose headers are read",
    "latents": "pictures that are encoded",
    "rows": "samples in the largest cache",
    "files": "pictures of the warm start",
    "captioned": "of those, one in so many has a caption",
}


# -- what is printed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One comparison."""

    title: str
    ours: str
    other: str
    ratio: float
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        target, is_met = "", True
        if self.least is not None:
            target, is_met = f"at least {self.least:g}", self.ratio >= self.least
        if self.most is not None:
            target, is_met = f"at most {self.most:g}", self.ratio <= self.most
        end = f"{target}{'' if is_met else ', MISSED'}"
        return f"{self.title:60} {self.ours:>16} {self.other:>16} {self.ratio:7.3f}  {end}".rstrip()


class Cost(NamedTuple):
    """Seconds on the clock, of all cores together, and of the calling thread."""

    clock: float
    cpu: float
    thread: float


def now() -> Cost:
    """Counted from some moment on."""
    return Cost(time.perf_counter(), cpu_s(), time.thread_time())


def timed(work: Callable[[], object]) -> Cost:
    """What `work` costs."""
    begin = now()
    work()
    return Cost(*(after - before for after, before in zip(now(), begin, strict=True)))


def in_turns(rounds: int, *works: Callable[[], object]) -> list[Cost]:
    """The least that each costs in several rounds."""
    costs = [[timed(work) for work in works] for _ in range(rounds)]
    return [Cost(*map(min, zip(*of_one, strict=True))) for of_one in zip(*costs, strict=True)]


def compared(title: str, ours_s: float, plain_s: float, count: int, least: float | None = None) -> Line:
    """A line about the time for each of `count` things; the ratio is that of the speeds."""
    ours, plain = (f"{seconds / count * 1e3:.3f} ms" for seconds in (ours_s, plain_s))
    return Line(title, ours, plain, plain_s / ours_s, least)


# -- processes --------------------------------------------------------------------------------------------------------


def children() -> list[int]:
    """The processes that this one has started."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def cpu_s() -> float:
    """Processor time of this process, of its children and of those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    # the clock of another process, as Linux numbers it
    alive = sum(time.clock_gettime(~child << 3 | 2) for child in children())
    return time.process_time() + ended.ru_utime + ended.ru_stime + alive


def peak_bytes(process: int) -> int:
    """The most memory that a process has had, with what its libraries take."""
    text = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


def private_bytes() -> int:
    """Memory of this process that no file backs."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("Anonymous")).split()[1])


def apart(function: Callable[..., T], *arguments: object) -> T:
    """The result of a call in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# -- pictures ---------------------------------------------------------------------------------------------------------


def draw_pictures(folder: Path, sizes: Sequence[tuple[int, int]], count: int) -> None:
    """JPEGs with soft shapes and grain, about as large as those of a camera, with captions."""
    folder.mkdir()
    rng, side = np.random.default_rng(0), max(map(max, sizes))
    grain = Image.merge("RGB", [Image.effect_noise((side, side), 24)] * 3)
    for number, size in enumerate(islice(cycle(sizes), count)):
        shapes = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        moved = ImageChops.offset(grain, 97 * number).crop((0, 0, *size))
        ImageChops.add(shapes, moved, offset=-128).save(folder / f"{number:04}.jpg", quality=90)
        (folder / f"{number:04}.txt").write_text(f"soft shapes, number {number}\n", encoding="utf-8")


def items_in(folder: Path, resolution: int) -> DatasetItems:
    """The pictures of a folder at one resolution."""
    return expand(scan(folder).records, (resolution,), DIVISOR)


def plainly_decoded(path: Path, size: tuple[int, int], gap: int = 2) -> np.ndarray:
    """Decode, crop and resize with Pillow alone; as in its `thumbnail`, `draft` leaves twice the size to scale from."""
    with Image.open(path) as image:
        width, height = image.size
        scale = max(size[0] / width, size[1] / height)
        image.draft("RGB", (ceil(gap * scale * width), ceil(gap * scale * height)))
        rgb = image.convert("RGB")
    # rounding must not make it negative
    left, top = (max(0.0, 1 - side / scale / whole) / 2 for side, whole in zip(size, (width, height), strict=True))
    (width, height) = rgb.size
    box = left * width, top * height, (1 - left) * width, (1 - top) * height
    return np.asarray(rgb.resize(size, Image.Resampling.LANCZOS, box=box))


def decoding(folder: Path, sizes: argparse.Namespace) -> Iterator[Line]:
    """Pictures of 12 megapixels through one worker process, beside a plain loop in this one."""
    draw_pictures(folder / "large", MEGAPIXELS_12, sizes.pictures)
    with Workers(1) as workers:
        for resolution in (512, 1024):
            yield from decoding_at(items_in(folder / "large", resolution), workers, sizes.rounds)
        (worker,) = children()
        peak = peak_bytes(worker)
    yield Line("memory of a worker, 12 MP at 1024", f"{peak / 1e6:.0f} MB", "150 MB", peak / 150e6, most=1)


def decoding_at(items: DatasetItems, workers: Workers, rounds: int) -> Iterator[Line]:
    """The lines about one resolution."""
    wishes, resolution = [Wish(item) for item in items], items.resolutions[0]

    def ours() -> None:
        for _ in workers.map(decode, wishes):
            pass

    def plain(gap: int) -> None:
        for item in items:
            plainly_decoded(item.record.path, item.size, gap)

    for item, found in zip(items, workers.map(decode, wishes), strict=True):
        assert isinstance(found, Decoded) and found.pixels is not None
        expected = plainly_decoded(item.record.path, item.size)
        assert found.pixels.shape == expected.shape and np.abs(found.pixels.astype(int) - expected).max() <= 1
    our, same, coarse = in_turns(rounds, ours, lambda: plain(2), lambda: plain(1))
    title, count = f"decode, resize and bucket to {resolution}", len(items)
    yield compared(f"{title}, CPU per picture", our.cpu, same.cpu, count, 0.95)
    yield compared(f"{title}, clock, one worker", our.clock, same.clock, count)
    yield compared(f"{title}, CPU, beside coarse draft", our.cpu, coarse.cpu, count)


# -- headers ----------------------------------------------------------------------------------------------------------


def header_reads(folder: Path, sizes: argparse.Namespace) -> Iterator[Line]:
    """Sizes and captions of a folder of JPEGs, without an index."""
    draw_pictures(folder / "few", SMALL, 20)
    root = folder / "headers"
    root.mkdir()
    for number in range(sizes.headers):
        for ending in ("jpg", "txt"):
            os.link(folder / f"few/{number % 20:04}.{ending}", root / f"{number:06}.{ending}")
    known = {record.name: (record.width, record.height, record.caption) for record in scan(root).records}
    assert known == plain_headers(root) and len(known) == sizes.headers
    our, plain = in_turns(sizes.rounds, lambda: scan(root), lambda: plain_headers(root))
    yield compared("header index with captions, CPU per file", our.cpu, plain.cpu, sizes.headers, 0.9)
    yield compared("header index with captions, clock", our.clock, plain.clock, sizes.headers, 0.9)


def plain_headers(folder: Path) -> dict[str, tuple[int, int, str]]:
    """The same with Pillow alone."""
    found = {}
    for name in os.listdir(folder):
        if name.endswith(".jpg"):
            with Image.open(folder / name) as image:
                width, height = image.size
            with open(folder / f"{name[:-4]}.txt", encoding="utf-8") as file:
                found[name] = width, height, file.read().strip()
    return found


# -- latents ----------------------------------------------------------------------------------------------------------


def building(folder: Path, sizes: argparse.Namespace) -> Iterator[Line]:
    """A cache of latents by the embedded VAE, read by one worker, beside the bare VAE on batches made before."""
    import torch
    from torch import Tensor

    from toolkit.data.cache.encode import LATENTS, Wanted, by_bucket, encode_images
    from toolkit.data.cache.rows import RowCache
    from toolkit.data.pictures.image import to_pixels
    from toolkit.models.source import Source

    torch.set_num_threads(1)
    draw_pictures(folder / "small", SMALL, 64)
    items, vae = items_in(folder / "small", LATENT_SIDE), Source("builtin:tiny-flux").load("vae", torch.float32)
    places = np.arange(sizes.latents) % len(items)
    rows, shapes = Wanted(keys_of(sizes.latents, 2), places, np.zeros_like(places)), items.sizes()[places]
    folders = (folder / f"latents-{number}" for number in range(1000))
    caches: list[RowCache] = []
    shares: list[float] = []
    inside_s = 0.0

    @torch.no_grad()
    def encode(pixels: np.ndarray) -> Tensor:
        nonlocal inside_s
        begin = time.perf_counter()
        latents: Tensor = vae.encode(to_pixels(pixels)).latent_dist.mode().bfloat16()
        inside_s += time.perf_counter() - begin
        return latents

    def ours() -> None:
        nonlocal inside_s
        begin, inside_s = time.perf_counter(), 0.0
        caches.append(RowCache(next(folders)))
        assert not encode_images(items, rows, shapes, caches[-1], encode, BATCH, workers)
        shares.append(inside_s / (time.perf_counter() - begin))

    def bare() -> None:
        made[:] = [encode(batch) for batch in batches]

    with Workers(1) as workers:
        read = [pixels_of(found) for found in workers.map(decode, [Wish(item) for item in items])]
        order = by_bucket(shapes, BATCH)
        batches, made = [np.stack([read[places[place]] for place in batch]) for batch in order], list[Tensor]()
        our, plain = in_turns(min(2, sizes.rounds), ours, bare)
    for batch, latents in zip(order, made, strict=True):
        assert torch.equal(caches[-1].gather(rows.keys[batch], LATENTS), latents)
    is_apart = shapes[:, :2].astype(np.int64).prod(1).sum() >= APART_FROM
    title = f"latent cache build, read by a {'process' if is_apart else 'thread'}"
    yield compared(f"{title}, clock", our.clock, plain.clock, sizes.latents, 0.95)
    yield compared(f"{title}, CPU of encoder", our.thread, plain.thread, sizes.latents, 0.95)
    yield Line("latent cache build, share of the clock in the VAE", f"{max(shares):.1%}", "100%", max(shares), 0.95)


def pixels_of(found: object) -> np.ndarray:
    """What was decoded."""
    assert isinstance(found, Decoded) and found.pixels is not None
    return found.pixels


# -- cached rows ------------------------------------------------------------------------------------------------------


def keys_of(count: int, what: int) -> np.ndarray:
    """Keys as hashes are, uint64 [n, 2]."""
    return np.random.default_rng(what).integers(0, 2**64, (count, 2), dtype=np.uint64)


def fill(folder: Path, count: int) -> None:
    """Latents and texts of `count` samples, each with a caption of its own, and the number of the sample in front."""
    import torch

    from toolkit.data.cache.rows import RowCache

    for what, (name, shape) in enumerate((("latents", LATENT_SHAPE), ("text", TEXT_SHAPE))):
        cache, values = RowCache(folder / name), torch.randn(shape).bfloat16()
        for number, key in enumerate(keys_of(count, what)):
            values.view(-1)[0] = number % 256
            cache.put(key.tobytes(), {name: values})
        cache.flush()


def fill_sparse(folder: Path, count: int) -> None:
    """The same in files without content, as large as shards are; they need room for their keys only."""
    from toolkit.data.cache.shard import Kind, pack

    nothing = np.empty(0, np.uint8)
    for what, kind in enumerate((Kind("latents", "BF16", LATENT_SHAPE), Kind("text", "BF16", TEXT_SHAPE))):
        keys, step = keys_of(count, what), 2**30 // kind.num_bytes
        (folder / kind.name).mkdir(parents=True)
        for start in range(0, count, step):
            packed = pack({key.tobytes(): [(kind, nothing)] for key in keys[start : start + step]}, {})
            *tables, last = [chunk for chunk in packed.chunks if chunk.size]
            with (folder / kind.name / f"{start:024x}.safetensors").open("wb") as file:
                file.write(len(packed.raw_header).to_bytes(8, "little") + packed.raw_header)
                file.writelines(table.data for table in tables)
                file.seek(packed.header.num_bytes - last.nbytes)
                file.write(last.data)


class Reader:
    """The caches of so many samples, and what a training step does with them."""

    def __init__(self, folder: Path, count: int) -> None:
        import torch

        from toolkit.data.cache.rows import RowCache

        self.count, is_sparse = count, count >= SPARSE_FROM
        (fill_sparse if is_sparse else fill)(folder, count)
        self.opened = timed(lambda: [RowCache(folder / name) for name in ("latents", "text")])
        self.latents, self.texts = RowCache(folder / "latents"), RowCache(folder / "text")
        self.keys = keys_of(count, 0), keys_of(count, 1)
        assert len(self.latents) == len(self.texts) == count
        assert self.latents.contains(self.keys[0]).all() and self.texts.contains(self.keys[1]).all()
        self.latents_out = torch.empty(BATCH, *LATENT_SHAPE, dtype=torch.bfloat16)
        self.texts_out = torch.zeros(BATCH, *TEXT_SHAPE, dtype=torch.bfloat16)
        rng = np.random.default_rng(1)
        among = rng.permutation(count)[:WARM_ROWS]
        # every row once or more, so that the first round leaves all of them in memory
        self.batches = np.resize(among, (max(500, ceil(len(among) / BATCH)), BATCH))
        for read in (self.gather, self.pad):
            for rows in self.batches:
                read(rows)
                if not is_sparse:
                    for out in (self.latents_out, self.texts_out):
                        assert out.view(BATCH, -1)[:, 0].tolist() == (rows % 256).tolist()

    def gather(self, rows: np.ndarray) -> None:
        """One batch, all texts of one length."""
        self.latents.gather(self.keys[0][rows], "latents", self.latents_out)
        self.texts.gather(self.keys[1][rows], "text", self.texts_out)

    def pad(self, rows: np.ndarray) -> None:
        """One batch, its texts padded into one tensor."""
        self.latents.gather(self.keys[0][rows], "latents", self.latents_out)
        for number, row in enumerate(self.texts.rows(self.keys[1][rows])):
            self.texts_out[number, : len(row["text"])] = row["text"]

    def speed(self, read: Callable[[np.ndarray], None], part: int, num_parts: int) -> float:
        """Samples per second of the reading thread, in a part of the batches."""
        some = self.batches[part::num_parts]

        def work() -> None:
            for rows in some:
                read(rows)

        return len(some) * BATCH / timed(work).thread


def cached_reads(folder: Path, sizes: argparse.Namespace) -> Iterator[Line]:
    """Latents and texts of batches in random order, from caches of several sizes."""
    import torch

    torch.set_num_threads(1)
    counts = [count for count in (1000, 10_000, 100_000) if count < sizes.rows] + [sizes.rows]
    readers = [Reader(folder / f"rows-{count}", count) for count in counts]
    num_parts = 4
    for label, verb in (("gathered", "gather"), ("padded", "pad")):
        best = dict.fromkeys(counts, 0.0)
        for number in range(num_parts * sizes.rounds):
            for reader in readers:
                speed = reader.speed(getattr(reader, verb), number % num_parts, num_parts)
                best[reader.count] = max(best[reader.count], speed)
        for count, speed in best.items():
            title = f"cached reads of {count:,} rows, {label}, per core"
            yield Line(title, f"{speed:,.0f} /s", "10,000 /s", speed / 10_000, least=1)
        few, many = best[counts[0]], best[counts[-1]]
        title = f"cached reads, {label}, {counts[-1]:,} beside {counts[0]:,}"
        yield Line(title, f"{many:,.0f} /s", f"{few:,.0f} /s", many / few, least=0.8)
    opened = readers[-1].opened
    yield Line(f"opening the caches of {counts[-1]:,} rows", f"{opened.clock:.3f} s", "5 s", opened.clock / 5)


# -- many files -------------------------------------------------------------------------------------------------------


def warm_start(folder: Path, sizes: argparse.Namespace) -> Iterator[Line]:
    """A folder of many files that has been read before: its samples, buckets and first epoch."""
    make_files(folder / "tree", sizes.files, sizes.captioned)
    make_files(folder / "some", 50, sizes.captioned)
    index = folder / "index"
    cold = apart(start_cost, folder / "tree", index)
    costs = [apart(start_cost, folder / "tree", index) for _ in range(sizes.rounds)]
    warm = Cost(*map(min, zip(*costs, strict=True)))
    look_s = min(timed(lambda: look_at_all(folder / "tree")).cpu for _ in range(sizes.rounds))
    kept = apart(start_bytes, folder / "tree", index, folder / "some") / sizes.files
    title = f"{sizes.files:,} images, {ceil(sizes.files / sizes.captioned):,} captions"
    yield Line(f"{title}: warm start", f"{warm.clock:.2f} s", "5 s", warm.clock / 5, most=1)
    yield Line(f"{title}: beside first start", f"{warm.clock:.2f} s", f"{cold.clock:.2f} s", warm.clock / cold.clock)
    yield Line(f"{title}: CPU, beside bare looks", f"{warm.cpu:.2f} s", f"{look_s:.2f} s", warm.cpu / look_s)
    is_fair = sizes.files >= MANY_FILES
    yield Line(f"{title}: memory per image", f"{kept:.0f} B", "300 B", kept / 300, most=1 if is_fair else None)


def make_files(folder: Path, count: int, captioned: int) -> None:
    """Tiny pictures of 200 sizes in folders of 1000, all or some with a caption."""
    pictures = []
    for number in range(200):
        file = io.BytesIO()
        Image.new("1", (64 + number % 37 * 8, 64 + number // 37 * 16)).save(file, "PNG")
        pictures.append(file.getvalue())
    for number in range(count):
        parent = f"{folder}/{number // 1000:04}"
        if number % 1000 == 0:
            os.makedirs(parent)
        write(f"{parent}/{number:07}.png", pictures[number * 31 % 200])
        if number % captioned == 0:
            write(f"{parent}/{number:07}.txt", b"a picture, number %d" % number)


def write(path: str, data: bytes) -> None:
    """Without the layers of `open`, because there may be millions."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, data)
    os.close(descriptor)


def start(folder: Path, index: Path) -> tuple[Items, Plan]:
    """What a run does before it loads a model, down to the first epoch; what it goes on with."""
    section = DatasetSection(folder_path=str(folder), resolution=512)
    items = read_datasets([section], DIVISOR, BATCH, None, index=index)
    # the table of buckets is part of it
    assert items.describe()
    return items, plan(items.keys(), items.batch_sizes(), seed=0, epoch=0)


def start_cost(folder: Path, index: Path) -> Cost:
    """What that costs in a fresh process, with the modules that it imports when it needs them."""
    kept = []
    cost = timed(lambda: kept.append(start(folder, index)))
    items, batches = kept[0]
    assert (np.sort(np.concatenate(list(batches))) == np.arange(len(items))).all()
    return cost


def look_at_all(folder: Path) -> int:
    """Size and time of every file, one after another: what a start must do at least to see what has changed."""
    return sum(entry.stat().st_size for parent in os.scandir(folder) for entry in os.scandir(parent))


def start_bytes(folder: Path, index: Path, some: Path) -> float:
    """What is kept in memory, beside what the modules take that few files need as well."""
    kept = [start(some, index)]
    before = private_bytes()
    kept.append(start(folder, index))
    return float(private_bytes() - before)


# -- all of it --------------------------------------------------------------------------------------------------------

PARTS = {
    "decode": decoding,
    "headers": header_reads,
    "latents": building,
    "reads": cached_reads,
    "start": warm_start,
}


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers, in less than a minute")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this; may be given several times")
    parser.add_argument("--folder", help="where the files are made for the time (default: that of the system)")
    for name, number in FULL.items():
        parser.add_argument(f"--{name}", type=int, help=f"{WHAT[name]} (default: {number}, quick: {QUICK[name]})")
    chosen = parser.parse_args()
    for name, number in (QUICK if chosen.quick else FULL).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, number)
    return chosen


def main() -> None:
    """Read the command line, measure, print."""
    chosen = read_options()
    print(f"{'':60} {'ours':>16} {'beside':>16}   ratio  target", flush=True)
    for name in chosen.only or PARTS:
        # each part's files go before the next one begins
        with TemporaryDirectory(dir=chosen.folder, prefix="bench-data-") as folder:
            for line in PARTS[name](Path(folder), chosen):
                print(line, flush=True)


if __name__ == "__main__":
    main()
