"""Conditions of a sample (rows, as the cache stores them) and of a batch (collated)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Row = Mapping[str, Tensor]


@dataclass(frozen=True)
class Conditions:
    """The conditions of one batch: tensors [B, ...] by name; padded token axes keep their lengths on the host."""

    parts: Mapping[str, Tensor]
    lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def get(self, name: str) -> Tensor | None:
        """The condition `name`, or None if this batch has none."""
        return self.parts.get(name)

    def mask(self, name: str) -> Tensor:
        """True where `name` [B, L, D] holds a token and False where it holds padding: [B, L], bool."""
        tensor = self.parts[name]
        lengths = self.lengths.get(name, (tensor.shape[1],) * len(tensor))
        positions = torch.arange(tensor.shape[1], device=tensor.device)
        return positions < torch.tensor(lengths, device=tensor.device)[:, None]

    def numbered(self, stem: str) -> list[Tensor]:
        """`stem.0`, `stem.1`, ... in order."""
        found: list[Tensor] = []
        while (name := f"{stem}.{len(found)}") in self.parts:
            found.append(self.parts[name])
        return found

    def plus(self, **more: Tensor) -> Conditions:
        """These conditions and `more`."""
        return replace(self, parts={**self.parts, **more})

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Conditions:
        """On `device`, floating-point parts as `dtype`; the copy is asynchronous from pinned memory."""
        parts = {
            name: moved(tensor, device, dtype if dtype and tensor.is_floating_point() else tensor.dtype)
            for name, tensor in self.parts.items()
        }
        return replace(self, parts=parts)

    def pin(self) -> Conditions:
        """In page-locked host memory, so that copies to a GPU can overlap computation."""
        return replace(self, parts={name: pinned(tensor) for name, tensor in self.parts.items()})


def moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The tensor on a device, and only there in another dtype.

    In one go torch would convert it on the host, into memory that is not pinned, and wait for the copy.
    """
    return tensor.to(device, non_blocking=True).to(dtype)


def pinned(tensor: Tensor) -> Tensor:
    """The tensor in page-locked memory; one that is on a device already stays there."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def collate(rows: Sequence[Row]) -> Conditions:
    """Stack rows; a token axis [L, D] of several lengths is padded with zeros at the end.

    Raises ValueError if the rows have different names, or differ in more than the number of tokens.
    """
    names = sorted(rows[0])
    for row in rows:
        if sorted(row) != names:
            raise ValueError(f"rows of one batch must have the same conditions: {names} and {sorted(row)}")
    parts: dict[str, Tensor] = {}
    lengths: dict[str, tuple[int, ...]] = {}
    for name in names:
        tensors = [row[name] for row in rows]
        shapes = {tuple(tensor.shape) for tensor in tensors}
        if len(shapes) == 1:
            parts[name] = torch.stack(tensors)
        elif all(tensor.ndim == 2 for tensor in tensors) and len({shape[1] for shape in shapes}) == 1:
            parts[name] = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
            lengths[name] = tuple(len(tensor) for tensor in tensors)
        else:
            raise ValueError(f"condition {name!r} cannot share a batch: shapes {sorted(shapes)}")
    return Conditions(parts, lengths)


def signature(row: Row) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """What must agree for rows to share a batch: the names, and all shapes but the number of tokens."""
    return tuple((name, tuple(row[name].shape[1:] if row[name].ndim == 2 else row[name].shape)) for name in sorted(row))


def hold(noisy: Tensor, cond: Conditions) -> Tensor:
    """Put the known first frames `given` [B, C, n, h, w] over the first n latent frames of `noisy` [B, C, f, h, w]."""
    given = cond.get("given")
    if given is None:
        return noisy
    return torch.cat([given.to(noisy.dtype), noisy[:, :, given.shape[2] :]], dim=2)
