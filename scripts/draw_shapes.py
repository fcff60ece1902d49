"""Draws captioned data sets: the small world of the embedded model, or the concept that is taught to it.

    python scripts/draw_shapes.py OUT --count 6000 --seed 1
    python scripts/draw_shapes.py datasets/mochi --concept mochi --count 20

The same arguments give the same files everywhere.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argparse
from collections.abc import Iterator
from itertools import cycle, islice
from random import Random

from PIL import Image

from toolkit.assets import mochi, shapes

SHARE_WITHOUT_SIZE = 0.25
"""How many captions leave the size unsaid, so that prompts without it work too."""


def world_pictures(count: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """Pictures of the small world with their captions, every kind equally often."""
    for index, spec in enumerate(islice(cycle(shapes.all_specs()), count)):
        rng = Random(f"{seed}/{index}")
        with_size = rng.random() >= SHARE_WITHOUT_SIZE
        yield shapes.draw(spec, rng), shapes.caption(spec, with_size)


def mochi_pictures(count: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """Pictures of mochi with their captions, on every background in turn."""
    for index, background in enumerate(islice(cycle(shapes.PALETTE), count)):
        yield mochi.draw_mochi(background, Random(f"{seed}/{index}")), mochi.mochi_caption(background)


CONCEPTS = {"shapes": world_pictures, "mochi": mochi_pictures}


def write_dataset(folder: Path, pictures: Iterator[tuple[Image.Image, str]], name: str) -> None:
    """Write NAME_00000.png, its caption NAME_00000.txt, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (picture, caption) in enumerate(pictures):
        path = folder / f"{name}_{index:05d}.png"
        picture.save(path, optimize=True)
        path.with_suffix(".txt").write_text(caption + "\n", encoding="ascii")


def main() -> None:
    """Read the command line, write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write to")
    parser.add_argument("--concept", choices=CONCEPTS, default="shapes", help="what to draw (default: %(default)s)")
    parser.add_argument("--count", type=int, default=240, help="number of pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="changes places and extents (default: %(default)s)")
    chosen = parser.parse_args()
    write_dataset(chosen.out, CONCEPTS[chosen.concept](chosen.count, chosen.seed), chosen.concept)
    print(f"{chosen.count} pictures of {chosen.concept} in {chosen.out}")


if __name__ == "__main__":
    main()
