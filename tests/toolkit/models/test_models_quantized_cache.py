"""Quantized weights from the cache are the very same; what is broken or somebody else's is made again."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from toolkit.models.parts import Parts, Plan
from toolkit.models.quantize import QUANTO, TORCHAO, Quantization
from toolkit.models.quantized_cache import QuantizedCache
from toolkit.models.source import Source
from toolkit.models.wrapped import leaves

CPU = torch.device("cpu")
RUNNABLE = [*QUANTO, *(qtype for qtype in TORCHAO if qtype != "int4" and importlib.util.find_spec("torchao"))]


def tensors(folder: Path, cache: Path | None, name: str = "transformer", **how: Any) -> dict[str, Tensor]:
    """All plain tensors of a quantized part, by name and number."""
    options = {"qtype": "qint8", **how}
    dtype = options.pop("dtype", torch.float32)
    plan = Plan(Quantization(**options))
    kept = QuantizedCache(cache) if cache else None
    parts = Parts(Source(str(folder)), CPU, dtype, plans={name: plan}, cache=kept)
    with parts.using(name):
        module = parts[name]
        assert not module.training and not any(param.requires_grad for param in module.parameters())
        found = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return {f"{key} {n}": leaf.clone() for key, t in found.items() for n, leaf in enumerate(leaves(t))}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key


@pytest.mark.parametrize("qtype", RUNNABLE)
@pytest.mark.parametrize("name", ["transformer", "text_encoder_2"])
def test_the_second_start_has_the_same_weights(tiny_flux: Path, tmp_path: Path, qtype: str, name: str):
    wanted = tensors(tiny_flux, None, name, qtype=qtype)
    assert_equal(tensors(tiny_flux, tmp_path, name, qtype=qtype), wanted)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(files) >= 3
    assert_equal(tensors(tiny_flux, tmp_path, name, qtype=qtype), wanted)
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}


def test_the_second_start_does_not_read_the_checkpoint(
    tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wanted = tensors(tiny_flux, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the checkpoint is read")

    monkeypatch.setattr(Source, "load", refuse)
    assert_equal(tensors(tiny_flux, tmp_path), wanted)


@pytest.mark.parametrize("change", [{"qtype": "qfloat8"}, {"exclude": ("*.to_q",)}, {"dtype": torch.bfloat16}])
def test_another_quantization_is_another_folder(tiny_flux: Path, tmp_path: Path, change: dict[str, Any]):
    tensors(tiny_flux, tmp_path)
    assert_equal(tensors(tiny_flux, tmp_path, **change), tensors(tiny_flux, None, **change))
    assert len(list((tmp_path / "quantized").iterdir())) == 2


def cut(place: Path) -> None:
    file = max(place.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])


def flip(place: Path) -> None:
    file = max(place.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def lose(place: Path) -> None:
    next(place.glob("*.safetensors")).unlink()


def scribble(place: Path) -> None:
    (place / "index.json").write_text("[1, 2")


def foreign(place: Path) -> None:
    (place / "index.json").write_text(json.dumps({"format": "other", "files": {}}))


@pytest.mark.parametrize("damage", [cut, flip, lose, scribble, foreign])
def test_what_is_broken_is_made_again(tiny_flux: Path, tmp_path: Path, damage: Callable[[Path], None]):
    wanted = tensors(tiny_flux, tmp_path)
    (place,) = (tmp_path / "quantized").iterdir()
    damage(place)
    with pytest.warns(UserWarning, match=r"is not whole or not ours; the weights are quantized again"):
        assert_equal(tensors(tiny_flux, tmp_path), wanted)
    assert_equal(tensors(tiny_flux, tmp_path), wanted)
    assert list((tmp_path / "quantized").iterdir()) == [place]


def test_a_failure_leaves_nothing_behind(tiny_flux: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise RuntimeError("quantization failed")

    monkeypatch.setattr(Quantization, "apply", fail)
    with pytest.raises(RuntimeError, match="quantization failed"):
        tensors(tiny_flux, tmp_path)
    assert list((tmp_path / "quantized").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tiny_flux: Path, tmp_path: Path):
    (tmp_path / "quantized").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="quantized weights are not kept"):
        assert_equal(tensors(tiny_flux, tmp_path), tensors(tiny_flux, None))
