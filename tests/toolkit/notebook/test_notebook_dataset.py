"""`aitk.Dataset`: what a notebook sees is what training sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from toolkit.data.datasets import read_datasets
from toolkit.data.pictures.pixels import item_pixels
from toolkit.notebook.dataset import Dataset

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"a.png": (96, 64), "b.png": (64, 96), "c.jpg": (64, 64), "sub/d.png": (96, 64)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text(f"picture {path.stem}", encoding="utf-8")
    return tmp_path / "photos"


def test_samples_are_those_of_training(photos: Path) -> None:
    data = Dataset(photos, resolution=64, flip_x=True, random_crop=True, trigger_word="m1k4")
    items = read_datasets([data.section], 16, 1, "m1k4")
    assert len(data) == len(items) == 8
    for epoch in (0, 1):
        data.epoch = epoch
        for sample, item in zip(data, items, strict=True):
            assert np.array_equal(np.asarray(sample.image), item_pixels(item, 42, epoch))
            assert sample.caption == item.text(42, epoch)
    assert data[0].caption.startswith("m1k4 picture")
    assert [sample.caption for sample in data[:2]] == [data[0].caption, data[1].caption]


def test_buckets_and_problems(photos: Path) -> None:
    (photos / "e.png").write_bytes(b"")
    data = Dataset(photos, resolution=64)
    assert sum(data.buckets().values()) == len(data) == 4
    assert set(data.buckets()) == {"64x64", "48x80", "80x48"}
    assert any("e.png: empty file" in line for line in data.problems)
    assert "4 samples in 3 buckets" in repr(data)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_epoch_has_every_sample_once(photos: Path, num_workers: int) -> None:
    loader = Dataset(photos, resolution=64, num_repeats=3).dataloader(2, num_workers=num_workers)
    orders = []
    for epoch in range(2):
        assert loader.epoch == epoch
        batches = list(loader)
        assert len(batches) == len(loader)
        for batch in batches:
            assert batch.pixels.shape[:2] == (len(batch), 3) and batch.pixels.dtype == torch.float32
            assert float(batch.pixels.min()) >= -1 and float(batch.pixels.max()) <= 1
        orders.append([item.id for batch in batches for item in batch.items])
    assert sorted(orders[0]) == sorted(orders[1]) and len(set(orders[0])) == 12
    assert orders[0] != orders[1]


def test_the_same_seed_gives_the_same_batches(photos: Path) -> None:
    def shown(seed: int) -> list[tuple[str, ...]]:
        loader = Dataset(photos, resolution=64, num_repeats=4, seed=seed).dataloader(4, num_workers=0)
        return [tuple(batch.captions) for batch in loader]

    assert shown(1) == shown(1) != shown(2)


def test_show_writes_a_grid(photos: Path, tmp_path: Path) -> None:
    path = Dataset(photos, resolution=64).show(4, columns=2, path=tmp_path / "grid.png")
    with Image.open(path) as grid:
        assert grid.width == 2 * 204 + 12
        assert len(grid.convert("RGB").getcolors(1 << 20)) > 500


def test_mistakes_are_told_together(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"flipx: unknown key; did you mean 'flip_x'\?") as error:
        Dataset(photos, flipx=True, num_repeats=0)
    assert "num_repeats: must be at least 1, not 0" in str(error.value)
    with pytest.raises(ValueError, match="nowhere"):
        Dataset(photos / "nowhere")
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        Dataset(photos).dataloader(0)


def test_latents_and_captions_are_those_of_the_model(photos: Path, tmp_path: Path) -> None:
    data = Dataset(photos, resolution=64)
    cached = data.cache("builtin:tiny-flux", arch="flux", device="cpu", folder=tmp_path / "cache")
    assert len(cached) == 4
    batches = list(cached.dataloader(2, num_workers=0))
    assert sum(len(batch) for batch in batches) == 4
    shapes = {tuple(batch.latents.shape[1:]) for batch in batches}
    assert shapes == {(8, item.size[1] // 4, item.size[0] // 4) for item in cached.items}
    assert {text for batch in batches for text in batch.texts} == {f"picture {name}" for name in "abcd"}
    written = sorted((tmp_path / "cache").rglob("*.safetensors"))
    # a second look encodes nothing
    again = Dataset(photos, resolution=64).cache("builtin:tiny-flux", arch="flux", folder=tmp_path / "cache")
    assert sorted((tmp_path / "cache").rglob("*.safetensors")) == written
    first = next(iter(again.dataloader(2, num_workers=0)))
    assert torch.equal(first.latents, batches[0].latents)


def test_a_model_that_is_not_there_is_told(photos: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'flux'"):
        Dataset(photos).cache("builtin:tiny-flux", arch="fluxx")


def test_the_public_name_is_lazy() -> None:
    code = "import aitk, sys; assert 'torch' not in sys.modules; print(aitk.Dataset.__name__, 'torch' in sys.modules)"
    folder = str(ROOT / "scripts")
    found = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["Dataset", "False"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_pixels_are_left_out_and_named_once(photos: Path, tmp_path: Path, num_workers: int) -> None:
    data = (photos / "c.jpg").read_bytes()
    (photos / "c.jpg").write_bytes(data[: len(data) // 2])
    dataset = Dataset(photos, resolution=64)
    assert [caption for _, caption in dataset] == ["picture a", "picture b", "picture d"]
    assert dataset.show(4, path=tmp_path / "grid.png").is_file()
    assert sum(len(batch) for batch in dataset.dataloader(2, num_workers=num_workers)) == 3
    assert len([line for line in dataset.problems if "c.jpg" in line]) == 1
    with pytest.raises(ValueError, match=r"c\.jpg"):
        dataset[2]
