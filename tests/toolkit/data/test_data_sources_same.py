"""The same pictures give the same samples, whatever form a data set has."""

import csv
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from toolkit.config.sections.dataset import DatasetSection
from toolkit.data.bucket import bucket_for
from toolkit.data.datasets import read_datasets
from toolkit.data.item import Item
from toolkit.data.items import DatasetItems
from toolkit.data.pictures.pixels import item_pixels
from toolkit.data.sources.choice import read_source
from toolkit.data.sources.reading import Reading
from toolkit.data.treatment import Treatment

CAPTIONS = {"a.png": "a red one", "b.jpg": "blue, large", "sub/c.webp": "green"}
SIZES = {"a.png": (96, 64), "b.jpg": (64, 96), "sub/c.webp": (80, 80)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures with captions beside them."""
    folder, rng = tmp_path_factory.mktemp("same") / "set", np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(folder / name, exif=exif)
        (folder / name).with_suffix(".txt").write_text(CAPTIONS[name], encoding="utf-8")
    return folder


def _as_json(folder: Path) -> Path:
    (folder / "m.json").write_text(json.dumps({name: {"caption": text} for name, text in CAPTIONS.items()}))
    return folder / "m.json"


def _as_json_lines(folder: Path) -> Path:
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in CAPTIONS.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder / "metadata.jsonl"


def _as_csv(folder: Path) -> Path:
    with open(folder / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "prompt"), *CAPTIONS.items()])
    return folder / "m.csv"


def _as_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"path": list(CAPTIONS), "caption": list(CAPTIONS.values())}), folder / "m.parquet")
    return folder / "m.parquet"


def _as_tar(folder: Path) -> Path:
    with tarfile.open(folder.parent / "s.tar", "w") as archive:
        for name in CAPTIONS:
            archive.add(folder / name, name)
            archive.add((folder / name).with_suffix(".txt"), str(Path(name).with_suffix(".txt")))
    return folder.parent / "s.tar"


def _as_saved(folder: Path) -> Path:
    library = pytest.importorskip("datasets")
    table = {"image": [str(folder / name) for name in CAPTIONS], "text": list(CAPTIONS.values())}
    saved = library.Dataset.from_dict(table).cast_column("image", library.Image())
    saved.save_to_disk(str(folder.parent / "saved"))
    return folder.parent / "saved"


def _items(path: Path) -> list[Item]:
    found = read_source(path, Reading(cache=path.parent / "cache"))
    assert found.problems == []
    size_of = partial(bucket_for, divisor=16, scale=1.0)
    return list(DatasetItems(found.records, [64], size_of, Treatment(random_crop=True), repeats=2, flip_x=True))


@pytest.mark.parametrize("make", [_as_json, _as_json_lines, _as_csv, _as_parquet, _as_tar, _as_saved])
def test_every_form_gives_the_same_samples(folder: Path, make: Callable[[Path], Path]) -> None:
    expected, found = _items(folder), _items(make(folder))
    is_packed = make in (_as_tar, _as_saved)
    assert [(item.text(0, 0), item.size, item.repeat, item.flip_x) for item in found] == [
        (item.text(0, 0), item.size, item.repeat, item.flip_x) for item in expected
    ]
    assert [item.record.digest for item in found] == [item.record.digest for item in expected]
    records = read_source(make(folder), Reading(cache=folder.parent / "cache")).records
    assert list(records.names()) == [record.name for record in records]
    assert list(records.chosen(np.array([2, 0])).names()) == [records[2].name, records[0].name]
    assert sorted(records.captions()) == sorted((caption, None) for caption in CAPTIONS.values())
    assert list(records.captions(np.array([2, 2]))) == [(records[2].caption, None)]
    assert list(records.chosen(np.array([1, 2])).captions(np.array([0]))) == [(records[1].caption, None)]
    # names of pictures in a tar differ, and with them what is drawn for each
    assert is_packed or [item.id for item in found] == [item.id for item in expected]
    for one, other in zip(found, expected, strict=True):
        if is_packed:
            one, other = Item(one.record, one.size, 64), Item(other.record, other.size, 64)
        assert np.array_equal(item_pixels(one, 1, 2), item_pixels(other, 1, 2))


def test_several_forms_at_once_keep_their_own_keys(folder: Path) -> None:
    paths = [folder, _as_json_lines(folder), _as_tar(folder), _as_saved(folder)]
    sections = [
        DatasetSection(
            folder_path=str(path),
            resolution=64,
            num_repeats=1 + number,
            batch_size=2 + number,
            trigger_word=f"word{number}",
            loss_multiplier=0.5 * (1 + number),
        )
        for number, path in enumerate(paths)
    ]
    items = read_datasets(sections, 16, 1, None, cache=folder.parent / "cache")
    for number in range(len(paths)):
        own = [item for item in items if item.treatment.dataset == number]
        assert [item.text(0, 0) for item in own[:: 1 + number]] == [
            f"word{number} {text}" for text in CAPTIONS.values()
        ]
        assert len(own) == 3 * (1 + number)
        assert {item.treatment.batch_size for item in own} == {2 + number}
        assert {item.treatment.weight for item in own} == {0.5 * (1 + number)}
