"""Which pictures are made of the pictures of data sets: from each on, or with each as a reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from extensions_built_in.generators.orders import Order, read_items, seed_of
from toolkit.data.datasets import read_datasets
from toolkit.data.item import Item
from toolkit.data.rng import stream
from toolkit.models.family import Family
from toolkit.sampling.references import check_references

if TYPE_CHECKING:
    from extensions_built_in.generators.config import BatchImg2Img, ReferenceGenerator


def of_starts(config: BatchImg2Img, family: Family, base: int, cache: Path) -> list[Order]:
    """Every sample of the data sets, changed by its caption or by the prompts of the config."""
    orders = _orders(config, family, base, _items(config, family, cache))
    checked = check_references([order.prompt for order in orders], family.facts, print)
    copies = Path(config.copy_inputs_to).expanduser() if config.copy_inputs_to else None
    return [replace(order, prompt=prompt, copies=copies) for order, prompt in zip(orders, checked, strict=True)]


def of_references(config: ReferenceGenerator, family: Family, base: int, cache: Path) -> list[Order]:
    """Every sample of the data sets as the reference of a picture of its size. ValueError if the model takes none."""
    if family.facts.references == "none":
        raise ValueError(
            f"model.arch: {config.model.arch} makes pictures from text alone; take a model that reads pictures, such "
            "as flux_kontext, flux_control or qwen_image_edit, or type batch_img2img"
        )
    orders = _orders(config, family, base, _items(config, family, cache))
    if config.generate.shuffle:
        orders = stream(base, 0, "", "order").sample(orders, len(orders))
    shown = []
    for order in orders:
        assert order.start is not None
        record = order.start.record
        if record.part is not None:
            raise ValueError(f"{record.name}: references are read from files of their own, not from archives")
        shown.append(replace(order.prompt, images=(str(record.path),)))
    checked = check_references(shown, family.facts, print)
    return [replace(order, prompt=prompt, start=None) for order, prompt in zip(orders, checked, strict=True)]


def _items(config: BatchImg2Img | ReferenceGenerator, family: Family, cache: Path) -> Sequence[Item]:
    trigger = config.generate.trigger_word
    items = read_datasets(config.datasets, family.facts.multiple, 1, trigger, index=cache / "index", cache=cache)
    for line in items.problems:
        print(line)
    return [items[place] for place in range(len(items))]


def _orders(config: BatchImg2Img | ReferenceGenerator, family: Family, base: int, items: Sequence[Item]) -> list[Order]:
    """One for each item and prompt, named like the picture; further ones of a picture are numbered."""
    making = config.generate
    pairs = [(item, text) for item in items for text in making.prompts or [item.text(base, 0)]]
    samples = [
        {"prompt": text, "width": item.size[0], "height": item.size[1], "seed": seed_of(making, base, place)}
        for place, (item, text) in enumerate(pairs)
    ]
    prompts = read_items(making, samples, family, stream(base, 0, "", "seeds"), trigger=making.trigger_word)
    stems: Counter[str] = Counter()
    orders = []
    for (item, _), prompt in zip(pairs, prompts, strict=True):
        stem = str(PurePosixPath(item.record.name).with_suffix(""))
        stems[stem] += 1
        name = stem if stems[stem] == 1 else f"{stem}_{stems[stem]}"
        sized = replace(prompt, width=item.size[0], height=item.size[1])
        orders.append(Order(sized, with_prompt=True, stem=name, start=item))
    return orders
