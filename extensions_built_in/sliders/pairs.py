"""The pictures of `slider.datasets`: checked, split where one picture holds both ends, and named as data sets.

The folder of the positive pictures becomes a data set whose `unconditional_path` is that of the negative ones.
Light, as the config needs it; pictures are only opened by `split_pairs`.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from extensions_built_in.sliders.sections import PairFolders
from toolkit.config.preflight import pictures
from toolkit.config.section import Remarked
from toolkit.config.sections.dataset import DatasetSection

SHOWN = 3
ENDS = ("neg", "pos")
CAPTION = ".txt"


def as_dataset(pair: PairFolders, training_folder: str, trigger: str | None) -> DatasetSection:
    """The data set that pairs are read as."""
    positive, negative = folders_of(pair, training_folder)
    return DatasetSection(
        folder_path=str(positive),
        unconditional_path=str(negative),
        default_caption=pair.target_class,
        resolution=pair.size,
        network_weight=pair.strengths[0],
        cache_latents_to_disk=True,
        cache_text_embeddings=True,
        trigger_word=trigger,
    )


def folders_of(pair: PairFolders, training_folder: str) -> tuple[Path, Path]:
    """Where the positive and the negative pictures are, or will be once `split_pairs` has made them."""
    if pair.pair_folder:
        negative, positive = (split_folder(pair.pair_folder, training_folder) / end for end in ENDS)
        return positive, negative
    return Path(pair.pos_folder or "").expanduser(), Path(pair.neg_folder or "").expanduser()


def split_folder(pair_folder: str, training_folder: str) -> Path:
    """The place in the cache for the halves of a folder's pictures."""
    from toolkit.data.cache.folder import cache_root

    root = cache_root(Path(training_folder).expanduser() / "run", os.environ)
    name = blake2b(os.fsencode(Path(pair_folder).expanduser().absolute()), digest_size=8).hexdigest()
    return root / "slider_pairs" / name


def missing_folders(pairs: Sequence[PairFolders]) -> Iterator[Remarked]:
    """Folders that are not there or empty, and pictures without their other end."""
    for index, pair in enumerate(pairs):
        place = ("slider", "datasets", index)
        given = {key: getattr(pair, key) for key in ("pair_folder", "pos_folder", "neg_folder")}
        stems: dict[str, set[str]] = {}
        for key, name in given.items():
            if not name:
                continue
            folder = Path(name).expanduser()
            if not folder.is_dir():
                yield (*place, key), f"there is no folder {name}"
                continue
            stems[key] = {str(path.relative_to(folder).with_suffix("")) for path in pictures(folder)}
            if not stems[key]:
                yield (*place, key), f"there is no picture in {name}"
        if len(stems) == 2 and all(stems.values()):
            yield from _unmatched(place, stems["pos_folder"], stems["neg_folder"], given)


def _unmatched(
    place: tuple[str | int, ...], positive: set[str], negative: set[str], given: dict[str, str | None]
) -> Iterator[Remarked]:
    for key, other, alone in (
        ("pos_folder", "neg_folder", positive - negative),
        ("neg_folder", "pos_folder", negative - positive),
    ):
        if alone:
            some = ", ".join(sorted(alone)[:SHOWN]) + (", ..." if len(alone) > SHOWN else "")
            text = f"{len(alone)} of its pictures have none of the same name in {given[other]}: {some}"
            yield (*place, key), text


def split_pairs(pairs: Sequence[PairFolders], training_folder: str) -> None:
    """Write the halves of pictures that show both ends: the left one is negative, the right one positive.

    What is there and not older than its picture stays. Captions beside a picture go with its positive half.
    """
    from toolkit.reporting.progress import bar

    for pair in pairs:
        if not pair.pair_folder:
            continue
        source, target = Path(pair.pair_folder).expanduser(), split_folder(pair.pair_folder, training_folder)
        found = list(pictures(source))
        _remove_others(target, {path.relative_to(source).with_suffix("") for path in found})
        stale = [path for path in found if not _is_current(path, target, path.relative_to(source).with_suffix(".png"))]
        if stale:
            with bar("splitting pairs", len(stale)) as advance:
                for path in stale:
                    _split(path, target, path.relative_to(source).with_suffix(".png"))
                    advance(1)
        for path in found:
            _copy_caption(path.with_suffix(CAPTION), target / "pos" / path.relative_to(source).with_suffix(CAPTION))


def _split(path: Path, target: Path, name: Path) -> None:
    from PIL import Image, ImageOps

    from toolkit.atomic import atomic_path

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image.load()
    except (OSError, ValueError) as error:
        raise ValueError(f"slider.datasets: {path} cannot be read: {error}") from error
    if image.width < 2:
        raise ValueError(f"slider.datasets: {path} is too narrow to hold two pictures")
    half = image.width // 2
    parts = {"neg": (0, 0, half, image.height), "pos": (image.width - half, 0, image.width, image.height)}
    for end, box in parts.items():
        place = target / end / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(place) as temporary:
            image.crop(box).save(temporary, "PNG")


def _is_current(path: Path, target: Path, name: Path) -> bool:
    made = [target / end / name for end in ENDS]
    return all(half.is_file() and half.stat().st_mtime_ns >= path.stat().st_mtime_ns for half in made)


def _copy_caption(source: Path, target: Path) -> None:
    if source.is_file():
        text = source.read_bytes()
        if not target.is_file() or target.read_bytes() != text:
            shutil.copyfile(source, target)
    else:
        target.unlink(missing_ok=True)


def _remove_others(target: Path, kept: set[Path]) -> None:
    """Delete halves whose picture is gone."""
    for end in ENDS:
        for path in list(pictures(target / end)):
            if path.relative_to(target / end).with_suffix("") not in kept:
                path.with_suffix(CAPTION).unlink(missing_ok=True)
                path.unlink()
