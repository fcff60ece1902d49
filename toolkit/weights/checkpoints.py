"""Checkpoints merged into one: a weighted mean of any number, or A + m (B - C); from files to files, by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from toolkit.atomic import atomic_path
from toolkit.weights.base import Base, copy_rest, saved_kinds, write_part
from toolkit.weights.headers import agreed, carried, merged_from
from toolkit.weights.stored import StoredTensors
from toolkit.weights.stream import write_stream

Rule = Callable[[list[Tensor]], Tensor]
"""The tensors of one name, in fp32 and in the order of the models, -> what is written."""


@dataclass(frozen=True)
class Mixture:
    """One part of several checkpoints."""

    part: str
    models: tuple[StoredTensors, ...]
    notes: tuple[str, ...]

    def mix(self, name: str, rule: Rule, dtype: torch.dtype) -> Tensor:
        """One tensor of the result; what only the first model has, or is no number, is the first one's."""
        first, *others = self.models
        if not first.kinds[name].is_number or any(name not in other for other in others):
            return first.read(name).to(dtype)
        return rule([model.read(name).float() for model in self.models]).to(dtype)


def weighted_mean(weights: Sequence[float]) -> Rule:
    """The mean with these weights, which need not add up to 1. Raises ValueError if they add up to 0."""
    total = sum(weights)
    if abs(total) < 1e-9:
        raise ValueError("models: the weights add up to 0, so there is no mean")

    def mean(tensors: list[Tensor]) -> Tensor:
        mixed = tensors[0] * (weights[0] / total)
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            mixed.add_(tensor, alpha=weight / total)
        return mixed

    return mean


def add_difference(multiplier: float) -> Rule:
    """A + m (B - C): what B learned over C, on top of A."""
    return lambda tensors: tensors[0] + multiplier * (tensors[1] - tensors[2])


def plan_mixtures(bases: Sequence[Base], parts: Sequence[str], allow_missing: bool) -> list[Mixture]:
    """The parts that are mixed. Raises ValueError where names or shapes of the models disagree."""
    first = bases[0]
    if any((base.file is None) != (first.file is None) for base in bases):
        raise ValueError("models: some are folders and some are single files; all have to be of one kind")
    if first.file is not None:
        return [_mixture("", bases, allow_missing)]
    usual = [part for part in first.index if part in first.denoisers or part.startswith("text_encoder")]
    chosen = list(parts) or [part for part in usual if first.has(part)] or [""]
    for number, base in enumerate(bases):
        lacking = [part for part in chosen if part and not base.has(part)]
        if lacking:
            raise ValueError(f"models.{number}: {base.name} has no {', '.join(lacking)}; name the `parts` to be merged")
    return [_mixture(part, bases, allow_missing) for part in chosen]


def merge_checkpoints(
    bases: Sequence[Base],
    mixtures: Sequence[Mixture],
    rule: Rule,
    target: Path,
    *,
    sources: Sequence[tuple[Path, float]],
    dtype: torch.dtype | None = None,
    whole: bool = True,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the result: a file or a folder as the models are; parts that are not mixed are the first model's."""
    first = bases[0]
    with atomic_path(target) as temporary:
        for mixture in mixtures:
            stored = mixture.models[0]
            kinds = saved_kinds(stored, dtype)

            def tensor_of(name: str, mixture: Mixture = mixture) -> Tensor:
                advance(1)
                return mixture.mix(name, rule, mixture.models[0].kinds[name].saved(dtype).dtype)

            if first.file is not None:
                header = agreed([carried(model.header) for model in mixture.models])
                write_stream(temporary, kinds, tensor_of, header | merged_from(sources))
                continue
            write_part(temporary / mixture.part, stored, first.library(mixture.part), kinds, tensor_of)
        if first.file is None:
            copy_rest(first, temporary, [mixture.part for mixture in mixtures], whole)
    for mixture in mixtures:
        for model in mixture.models:
            model.close()


def _mixture(part: str, bases: Sequence[Base], allow_missing: bool) -> Mixture:
    models = tuple(base.open(part) for base in bases)
    first, where = models[0], f" of {part}" if part else ""
    notes = []
    for base, model in zip(bases[1:], models[1:], strict=True):
        lacking, extra = (
            sorted(first.kinds.keys() - model.kinds.keys()),
            sorted(model.kinds.keys() - first.kinds.keys()),
        )
        if not set(first.kinds) & set(model.kinds):
            raise ValueError(
                f"{base.name} and {bases[0].name} have no tensor{where} in common: other models, or layouts"
            )
        if (lacking or extra) and not allow_missing:
            differing = _count(lacking, "missing in the former") + _count(extra, "missing in the latter")
            raise ValueError(
                f"{base.name} and {bases[0].name} are not of one architecture: {differing}with `allow_missing: true` "
                "these are taken from the first model, or left out"
            )
        if lacking or extra:
            notes.append(f"{base.name}{where}: {len(lacking)} tensors are the first model's, {len(extra)} are left out")
        for name in first.kinds.keys() & model.kinds.keys():
            if first.kinds[name].shape != model.kinds[name].shape:
                shapes = f"{list(model.kinds[name].shape)} and {list(first.kinds[name].shape)}"
                raise ValueError(f"{base.name} and {bases[0].name} have other shapes of {name}: {shapes}")
    return Mixture(part, models, tuple(notes))


def _count(names: Sequence[str], where: str) -> str:
    return f"{len(names)} tensors are {where}, e.g. {names[0]}; " if names else ""
