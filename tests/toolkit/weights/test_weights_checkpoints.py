"""Checkpoints merged: means, differences, folders and files, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.weights.base import open_base
from toolkit.weights.checkpoints import Rule, add_difference, merge_checkpoints, plan_mixtures, weighted_mean
from toolkit.weights.stored import Kind
from toolkit.weights.stream import write_stream

WEIGHTS = "diffusion_pytorch_model.safetensors"


def draw(seed: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(4, 3, generator=rng),
        "b.weight": torch.randn(2, generator=rng).half(),
        "ids": torch.tensor([seed]),
    }


def write(path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, header)
    return path


def mix(files: list[Path], rule: Rule, target: Path, dtype: torch.dtype | None = None, **options: bool) -> None:
    bases = [open_base(str(path)) for path in files]
    mixtures = plan_mixtures(bases, [], options.get("allow_missing", False))
    merge_checkpoints(bases, mixtures, rule, target, sources=[(path, 1.0) for path in files], dtype=dtype)


def test_the_weighted_mean_and_the_added_difference_are_what_they_say(tmp_path: Path) -> None:
    states = [draw(seed) for seed in (1, 2, 3)]
    both = {"modelspec.title": "same", "sshs_model_hash": "old"}
    files = [write(tmp_path / f"{n}.safetensors", state, both | {"n": str(n)}) for n, state in enumerate(states)]
    mix(files, weighted_mean([1, 2, 5]), tmp_path / "mean.safetensors")
    found = load_file(tmp_path / "mean.safetensors")
    a, b, c = (state["a.weight"] for state in states)
    torch.testing.assert_close(found["a.weight"], (a + 2 * b + 5 * c) / 8, atol=1e-6, rtol=1e-6)
    assert found["b.weight"].dtype == torch.float16 and found["ids"].tolist() == [1]
    mix(files, add_difference(0.5), tmp_path / "sum.safetensors", torch.bfloat16)
    found = load_file(tmp_path / "sum.safetensors")
    torch.testing.assert_close(found["a.weight"], (a + 0.5 * (b - c)).bfloat16())
    assert found["ids"].dtype == torch.int64
    from toolkit.weights.stored import StoredTensors

    header = StoredTensors([tmp_path / "mean.safetensors"]).header
    assert header.keys() == {"modelspec.title", "merged_from", "format"}
    assert [one["file"] for one in json.loads(header["merged_from"])] == [path.name for path in files]


def test_a_difference_of_nothing_changes_no_bit(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.safetensors", draw(seed)) for n, seed in enumerate((1, 2, 2))]
    mix(files, add_difference(0.7), tmp_path / "out.safetensors")
    assert torch.equal(load_file(tmp_path / "out.safetensors")["a.weight"], draw(1)["a.weight"])


def test_models_of_other_architectures_are_told_apart(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", draw(1))
    more = write(tmp_path / "b.safetensors", draw(2) | {"extra": torch.ones(2)})
    wide = write(tmp_path / "c.safetensors", draw(2) | {"a.weight": torch.ones(5, 3)})
    other = write(tmp_path / "d.safetensors", {"z": torch.ones(1)})
    out = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match=r"1 tensors are missing in the latter, e.g. extra.*allow_missing"):
        mix([first, more], weighted_mean([1, 1]), out)
    with pytest.raises(ValueError, match=r"other shapes of a.weight: \[5, 3\] and \[4, 3\]"):
        mix([first, wide], weighted_mean([1, 1]), out)
    with pytest.raises(ValueError, match="no tensor in common"):
        mix([first, other], weighted_mean([1, 1]), out)
    with pytest.raises(ValueError, match="add up to 0"):
        weighted_mean([1, -1])
    mix([first, more], weighted_mean([1, 1]), out, allow_missing=True)
    assert load_file(out).keys() == draw(1).keys()


def test_folders_are_mixed_part_by_part_and_load_as_a_pipeline(tiny_flux: Path, tmp_path: Path) -> None:
    from extensions_built_in.flux.tiny import save_tiny

    other = save_tiny(tmp_path / "other", seed=1)
    mix([tiny_flux, other], weighted_mean([3, 1]), tmp_path / "out")
    for part, file in (("transformer", WEIGHTS), ("text_encoder", "model.safetensors")):
        first, second = load_file(tiny_flux / part / file), load_file(other / part / file)
        found = load_file(tmp_path / "out" / part / file)
        for name, tensor in found.items():
            wanted = 0.75 * first[name] + 0.25 * second[name] if tensor.is_floating_point() else first[name]
            torch.testing.assert_close(tensor, wanted, atol=1e-6, rtol=1e-6)
    vae = load_file(tmp_path / "out" / "vae" / WEIGHTS)
    assert all(torch.equal(tensor, vae[name]) for name, tensor in load_file(tiny_flux / "vae" / WEIGHTS).items())
    assert FluxPipeline.from_pretrained(tmp_path / "out").transformer is not None


def test_a_streamed_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = draw(1) | {"one": torch.tensor(2.0), "none": torch.zeros(0, 3), "b16": torch.ones(3).bfloat16()}
    kinds = {name: Kind(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_stream(tmp_path / "a.safetensors", kinds, tensors.__getitem__, {"k": "v"})
    save_file(tensors, tmp_path / "b.safetensors", {"k": "v", "format": "pt"})
    found = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(tensor, found[name]) for name, tensor in tensors.items())
    data = [path.read_bytes() for path in (tmp_path / "a.safetensors", tmp_path / "b.safetensors")]
    bodies = [text[8 + int.from_bytes(text[:8], "little") :] for text in data]
    assert bodies[0] == bodies[1]
