"""`scripts/draw_shapes.py` as a user runs it: same files every time, and datasets/mochi is what it draws."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.assets.recognition import recognize

ROOT = Path(__file__).resolve().parents[2]


def draw(folder: Path, *options: str) -> dict[str, Path]:
    """Run the script from another folder and list what it wrote."""
    command = [sys.executable, str(ROOT / "scripts" / "draw_shapes.py"), str(folder), *options]
    subprocess.run(command, check=True, cwd=folder.parent, capture_output=True)
    return {path.name: path for path in sorted(folder.iterdir())}


def same(one: Path, other: Path) -> bool:
    """Equal pictures or equal texts; how a PNG is packed may differ between libraries."""
    if one.suffix == ".png":
        return np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))
    return one.read_text() == other.read_text()


def test_same_seed_same_files(tmp_path: Path):
    first, again = (draw(tmp_path / name, "--count", "12", "--seed", "5") for name in "ab")
    other = draw(tmp_path / "c", "--count", "12", "--seed", "6")
    assert len(first) == 24
    assert all(path.read_bytes() == again[name].read_bytes() for name, path in first.items())
    assert not all(same(path, other[name]) for name, path in first.items())


def test_captions_say_what_the_pictures_show(tmp_path: Path):
    files = draw(tmp_path / "shapes", "--count", "40")
    sizes = set()
    for name in (name for name in files if name.endswith(".png")):
        spec = recognize(Image.open(files[name])).spec
        assert spec is not None
        said = files[name.replace(".png", ".txt")].read_text().split()
        sizes.add(said[1] if said[1] in ("small", "large") else None)
        assert said[-6:] == [spec.color, spec.shape, "on", "a", spec.background, "background"]
        assert said[1] in (spec.size, spec.color)
    assert sizes == {"small", "large", None}


def test_committed_concept_is_what_its_command_draws(tmp_path: Path):
    committed = {path.name: path for path in (ROOT / "datasets" / "mochi").iterdir() if path.suffix != ".md"}
    drawn = draw(tmp_path / "mochi", "--concept", "mochi", "--count", "24")
    assert drawn.keys() == committed.keys()
    assert all(same(path, committed[name]) for name, path in drawn.items())
