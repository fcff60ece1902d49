"""Puts an inspection together, from the items that training would see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.datasets import PICTURES, Pictures, read_datasets
from toolkit.data.inspect.captions import caption_facts
from toolkit.data.inspect.duplicates import exact_facts, exact_groups, near_facts
from toolkit.data.inspect.facts import Broken, Inspection, Note
from toolkit.data.inspect.files import folder_files, told_broken
from toolkit.data.inspect.pictures import Bar, Gallery, Look, look_at_all, quiet
from toolkit.data.inspect.sizes import aspect_facts, bucket_facts, crop_facts, size_facts
from toolkit.data.inspect.tokens import TextLength, text_lengths
from toolkit.data.items import Items

RESOLUTION = 1024
DIVISOR = 16


def inspect_folder(
    path: Path | str,
    resolutions: Sequence[int] = (RESOLUTION,),
    divisor: int = DIVISOR,
    *,
    batch_size: int = 1,
    caption_ext: str = ".txt",
    trigger: str | None = None,
    num_frames: int = 1,
    tokenizer: Path | None = None,
    pixels: bool = True,
    bar: Bar = quiet,
) -> Inspection:
    """What training would make of a folder, or another source of pictures. With `num_frames`, videos are read too.

    Without `pixels` only headers are read: no near duplicates, and broken pixels are not found. Raises ValueError for
    what is no data set.
    """
    lengths = text_lengths(tokenizer) if tokenizer else []
    values = {"resolution": list(resolutions), "caption_ext": caption_ext, "num_frames": num_frames}
    section = DatasetSection.model_validate({"folder_path": str(path), **values})
    taken = Pictures(frame_stride=1) if section.has_video else PICTURES
    items = read_datasets([section], divisor, batch_size, trigger, taken=taken)
    return inspect_items(items, [section], divisor, path=str(path), lengths=lengths, pixels=pixels, bar=bar)


def inspect_items(
    items: Items,
    sections: Sequence[DatasetSection],
    divisor: int,
    *,
    path: str = "",
    lengths: Sequence[TextLength] = (),
    use_captions: bool = True,
    pixels: bool = True,
    problems: Sequence[str] = (),
    bar: Bar = quiet,
) -> Inspection:
    """What is to be known about the items of `sections`; `problems` are said beside those of the items."""
    places = [section.folder for section in sections]
    gallery = Gallery(items, places)
    # a folder that several data sets name is sorted once
    once = {place: number for number, place in reversed(list(enumerate(places)))}
    folders = [
        folder_files(sections[number], items.datasets[number].records, gallery.labels[number], use_captions)
        for number in sorted(once.values())
    ]
    looks = look_at_all(gallery, pixels, bar)
    exact = exact_groups(gallery, looks, bar)
    buckets = bucket_facts(gallery)
    num_videos = sum(look.is_video for look in looks)
    return Inspection(
        path=path,
        resolutions=tuple(sorted({size for section in sections for size in section.resolutions})),
        divisor=divisor,
        pixels_read=pixels,
        sources=tuple(folder.facts for folder in folders),
        pictures=len(gallery) - num_videos,
        videos=num_videos,
        samples=len(items),
        batches=sum(bucket.batches for bucket in buckets),
        broken=(
            *(broken for folder in folders for broken in folder.broken),
            *told_broken(sections, items.problems),
            *_broken(gallery, looks),
        ),
        filtered=tuple(filtered for folder in folders for filtered in folder.filtered),
        sizes=size_facts(gallery),
        aspects=aspect_facts(gallery),
        buckets=buckets,
        crops=crop_facts(gallery),
        captions=caption_facts(gallery, folders, lengths),
        exact_duplicates=exact_facts(gallery, exact),
        near_duplicates=near_facts(gallery, [look.hash for look in looks], exact),
        notes=_notes(gallery, looks),
        problems=(*items.problems, *problems),
    )


def _broken(gallery: Gallery, looks: Sequence[Look]) -> list[Broken]:
    """Files whose header is fine and whose pixels are not."""
    return [Broken(gallery.name(index), look.problem, "pixels") for index, look in enumerate(looks) if look.problem]


def _notes(gallery: Gallery, looks: Sequence[Look]) -> tuple[Note, ...]:
    """What the files tell, the most frequent first."""
    names: dict[str, list[int]] = {}
    for index, look in enumerate(looks):
        for text in look.notes:
            names.setdefault(text, []).append(index)
    ranked = sorted(names.items(), key=lambda found: (-len(found[1]), found[0]))
    return tuple(Note(text, tuple(map(gallery.name, group))) for text, group in ranked)
