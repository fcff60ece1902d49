"""A trainer that trains on data sets: what it has beside the keys of every trainer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from toolkit.config import checks, preflight
from toolkit.config.preservation_checks import check_preservation, compare_preservation
from toolkit.config.section import Remarked, works
from toolkit.config.sections.dataset import DatasetSection
from toolkit.trainer.config import TrainerPlugin


class DataTrainerPlugin(TrainerPlugin):
    """A process that trains on pictures and captions; `toolkit/trainer/data.py` reads them."""

    handed_down: ClassVar[Mapping[str, str]] = {
        "trigger_word": "datasets.*.trigger_word",
        "train.cache_text_embeddings": "datasets.*.cache_text_embeddings",
    }
    has_companions: ClassVar[bool] = True
    takes_pairs: ClassVar[bool] = False
    """Whether it trains on the pairs of `datasets[].unconditional_path`."""

    datasets: list[DatasetSection] = works(..., "Folders of pictures and captions.", min_length=1)

    def contradictions(self) -> Iterator[Remarked]:
        """Sections that do not fit together."""
        yield from super().contradictions()
        yield from checks.check_datasets(self.datasets)
        yield from checks.check_consumers(self.datasets, self.takes_pairs)
        yield from checks.check_texts(self.datasets, self.train)
        yield from check_preservation(self.train, self.network, self.datasets, self.trigger, self.trains_model)

    def differences(self) -> Iterator[Remarked]:
        """What ai-toolkit would do otherwise."""
        yield from super().differences()
        yield from checks.compare_datasets(self.datasets)
        yield from compare_preservation(self.train, self.datasets)

    def preflight(self) -> Iterator[Remarked]:
        """What on this machine keeps it from running."""
        yield from preflight.check_folders(self.datasets)
        yield from _wrong_augmentations(self.datasets)
        yield from super().preflight()

    def plan_of_data(self) -> list[str]:
        """The data sets."""
        return [
            f"data set: {dataset.folder} ({_counted(dataset)}at {', '.join(map(str, dataset.resolutions))})"
            for dataset in self.datasets
        ]

    def num_pictures(self) -> int:
        """How many pictures or videos its folders hold; 0 if one is a list or an archive."""
        counts = [_count(dataset) or 0 for dataset in self.datasets]
        return sum(counts) if all(counts) else 0

    def resolutions(self) -> list[int]:
        """Sizes that are trained."""
        return [size for dataset in self.datasets for size in dataset.resolutions]


def _count(dataset: DatasetSection) -> int | None:
    """How many pictures and videos a folder has; None for lists and archives, which are counted when they are read."""
    return sum(1 for _ in preflight.pictures(dataset.folder, dataset.endings)) if dataset.folder.is_dir() else None


def _counted(dataset: DatasetSection) -> str:
    """How many there are, in words; nothing where that is not known."""
    count, kinds = _count(dataset), "pictures and videos" if dataset.has_video else "pictures"
    return "" if count is None else f"{count} {kinds} "


def _wrong_augmentations(datasets: Sequence[DatasetSection]) -> Iterator[Remarked]:
    """Transforms that albumentations does not know, or not with these arguments."""
    if not any(dataset.augments or dataset.augmentations for dataset in datasets):
        return
    from toolkit.data.pictures.augment import wrong_steps

    for index, dataset in enumerate(datasets):
        yield from ((("datasets", index, *path), text) for path, text in wrong_steps(dataset))
