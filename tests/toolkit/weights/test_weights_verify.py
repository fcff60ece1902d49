"""What `verify` finds in broken files, and that it finds nothing in good ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from toolkit.networks.files import write_weights
from toolkit.networks.keys.family import names_of
from toolkit.weights.base import open_base
from toolkit.weights.verify import compare, examine

STEM = "transformer.transformer_blocks.0.attn.to_q"


def good() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        f"{STEM}.lora_A.weight": torch.randn(2, 32, generator=rng),
        f"{STEM}.lora_B.weight": torch.randn(32, 2, generator=rng),
    }


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    write_weights(path, tensors, torch.float32, {"network_type": "lora"})
    return path


def test_a_good_file_has_no_problem_and_fits_its_model(tiny_flux: Path, tmp_path: Path) -> None:
    file = save(good(), tmp_path / "a.safetensors")
    found = examine(file)
    assert (found.problems, found.notes, found.layers, found.tensors) == ([], [], 1, 2)
    assert compare(file, open_base(str(tiny_flux)), names_of("flux")) == []


BROKEN = {
    "nan": ({f"{STEM}.lora_A.weight": torch.full((2, 32), float("nan"))}, "64 of 64 numbers that are NaN"),
    "ranks": ({f"{STEM}.lora_A.weight": torch.ones(3, 32)}, "are of different ranks"),
    "zero": ({f"{STEM}.lora_B.weight": torch.zeros(32, 2)}, "all layers are zero"),
    "alpha shape": ({f"{STEM}.alpha": torch.ones(3)}, "alpha has the shape"),
    "half": ({"transformer.proj_out.lora_A.weight": torch.ones(2, 4)}, "come in pairs"),
    "dora alone": ({"transformer.proj_out.lora_magnitude_vector": torch.ones(2)}, "nothing else"),
    "dora size": ({f"{STEM}.lora_magnitude_vector": torch.ones(5)}, "not one per output"),
    "lokr": ({"transformer.proj_out.lokr_w1": torch.ones(2, 2)}, "lokr_w2 is missing"),
    "loha": (
        {f"transformer.proj_out.hada_w{n}_{s}": torch.ones(*((4, n) if s == "a" else (n, 4 + n))) for n in (1, 2)
         for s in "ab"},
        "two products of the LoHa",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named_with_its_layer(name: str, tmp_path: Path) -> None:
    changes, text = BROKEN[name]
    found = examine(save(good() | changes, tmp_path / "a.safetensors"))
    assert len(found.problems) == 1 and text in found.problems[0], found.problems


def test_a_file_of_8_bits_is_good_and_one_of_no_rank_is_odd(tmp_path: Path) -> None:
    few = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in good().items()} | {f"{STEM}.alpha": torch.tensor(4.0)}
    save_file(few, tmp_path / "a.safetensors")
    assert not examine(tmp_path / "a.safetensors").problems
    none = {f"{STEM}.lora_A.weight": torch.ones(0, 32), f"{STEM}.lora_B.weight": torch.ones(32, 0)}
    save_file(none | {f"{STEM}.alpha": torch.tensor(4.0)}, tmp_path / "b.safetensors")
    assert f"{STEM}: the rank is 0, so that it changes nothing" in examine(tmp_path / "b.safetensors").notes


def test_hashes_that_are_not_those_of_the_tensors_and_cut_files_are_problems(tmp_path: Path) -> None:
    file = save(good(), tmp_path / "a.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    (tmp_path / "b.safetensors").write_bytes(data)
    (problem,) = examine(tmp_path / "b.safetensors").problems
    assert "sshs_model_hash" in problem
    (tmp_path / "c.safetensors").write_bytes(data[:-7])
    (problem,) = examine(tmp_path / "c.safetensors").problems
    assert "not a readable safetensors file" in problem
    save_file({"model.weight": torch.ones(2)}, tmp_path / "d.safetensors")
    assert "whole model" in examine(tmp_path / "d.safetensors").problems[0]


def test_what_is_only_odd_is_a_note(tmp_path: Path) -> None:
    odd = good() | {f"{STEM}.alpha": torch.tensor(400.0), "strange": torch.ones(1)}
    odd |= {
        "transformer.proj_out.lora_A.weight": torch.ones(2, 4),
        "transformer.proj_out.lora_B.weight": torch.zeros(4, 2),
    }
    save_file(odd, tmp_path / "a.safetensors")
    found = examine(tmp_path / "a.safetensors")
    assert not found.problems
    text = "\n".join(found.notes)
    for part in (
        "1 keys are not of a network",
        "alpha 400 is 200 times",
        "1 of 2 layers are zero",
        "no sshs_model_hash",
    ):
        assert part in text


def test_layers_and_shapes_that_a_model_does_not_have_are_problems(tiny_flux: Path, tmp_path: Path) -> None:
    base, names = open_base(str(tiny_flux)), names_of("flux")
    tensors = {key.replace("blocks.0", "blocks.5"): tensor for key, tensor in good().items()}
    tensors |= {f"{STEM}.lora_A.weight": torch.ones(2, 31), f"{STEM}.lora_B.weight": torch.ones(32, 2)}
    encoder = "text_encoder.text_model.encoder.layers.7.mlp.fc1"
    tensors |= {f"{encoder}.lora_A.weight": torch.ones(2, 4), f"{encoder}.lora_B.weight": torch.ones(4, 2)}
    problems = compare(save(tensors, tmp_path / "a.safetensors"), base, names)
    assert len(problems) == 3
    assert any("transformer_blocks.5.attn.to_q: the model has no such layer" in text for text in problems)
    assert any(
        "transformer_blocks.0.attn.to_q: does not fit the model's weight of [32, 32]" in text for text in problems
    )
    assert any("layers.7.mlp.fc1: the model has no such layer" in text for text in problems)
