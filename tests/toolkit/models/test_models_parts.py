"""Parts are loaded when used, freed after it, never twice, and a missing `with` is named."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from toolkit.models.parts import Parts, Plan
from toolkit.models.quantize import Quantization, is_quantized
from toolkit.models.source import Source

CPU = torch.device("cpu")


@pytest.fixture
def parts(tiny_flux: Path) -> Parts:
    return Parts(Source(str(tiny_flux)), CPU, torch.float32)


def test_at_most_one_part_is_alive(parts: Parts):
    seen: list[weakref.ref[torch.nn.Module]] = []
    for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
        with parts.using(name):
            seen.append(weakref.ref(parts[name]))
            assert [ref() is not None for ref in seen] == [False] * (len(seen) - 1) + [True]
            assert parts.is_loaded(name)
        assert not parts.is_loaded(name)
    assert all(ref() is None for ref in seen)


def test_nested_use_shares_and_only_the_outer_one_frees(parts: Parts):
    with parts.using("vae"):
        vae = parts["vae"]
        with parts.using("vae", "tokenizer"):
            assert parts["vae"] is vae
        assert parts["vae"] is vae and not parts.is_loaded("tokenizer")
    assert not parts.is_loaded("vae")


def test_an_error_frees_as_well(parts: Parts):
    with pytest.raises(KeyboardInterrupt), parts.using("vae"):
        raise KeyboardInterrupt
    assert not parts.is_loaded("vae")


def test_what_was_loaded_before_a_part_that_fails_is_freed(parts: Parts):
    with pytest.raises(ValueError, match="no part 'vea'"), parts.using("vae", "vea"):
        pass
    assert not parts.is_loaded("vae")


def test_the_missing_with_is_named(parts: Parts):
    with pytest.raises(RuntimeError, match=r"vae is not loaded: use it inside `with parts\.using\('vae'\):`"):
        parts["vae"]


def test_types_and_preparation_are_per_part(tiny_flux: Path):
    prepared = Parts(
        Source(str(tiny_flux)),
        CPU,
        torch.bfloat16,
        dtypes={"vae": torch.float32},
        plans={"text_encoder": Plan(prepare=lambda module: module.half())},
    )
    with prepared.using("vae", "text_encoder", "text_encoder_2"):
        assert prepared["vae"].dtype == torch.float32
        assert prepared["text_encoder"].dtype == torch.float16
        assert prepared["text_encoder_2"].dtype == torch.bfloat16


def test_plans_are_carried_out_in_order(tiny_flux: Path):
    seen: list[str] = []

    def look(name: str) -> Callable[[Any], Any]:
        def at(module: Any) -> Any:
            kinds = [
                is_quantized(layer) for layer in module.transformer_blocks[0].modules() if hasattr(layer, "weight")
            ]
            seen.append(f"{name}: quantized {any(kinds)}, streamed {hasattr(module, 'layer_stream')}")
            return module

        return at

    class Zeros:
        """An edit that the quantization has to see."""

        digest = "zeros"

        def apply(self, prefix: str, block: torch.nn.Module) -> None:
            if prefix == "single_transformer_blocks.0":
                block.proj_out.weight.zero_()

    plan = Plan(Quantization("qint8"), prepare=look("prepare"), offload=1.0, finish=look("finish"))
    parts = Parts(Source(str(tiny_flux)), CPU, torch.float32, plans={"transformer": plan})
    parts.edits["transformer"] = Zeros()
    with parts.using("transformer"):
        assert not parts["transformer"].single_transformer_blocks[0].proj_out.weight.dequantize().any()
        assert parts["transformer"].transformer_blocks[0].attn.to_q.weight.dequantize().any()
    assert seen == ["prepare: quantized True, streamed False", "finish: quantized True, streamed True"]


def test_an_edit_changes_weights_that_are_not_quantized_too(tiny_flux: Path):
    class Ones:
        """All that is in no block."""

        digest = "ones"

        def apply(self, prefix: str, block: torch.nn.Module) -> None:
            if not prefix:
                block.proj_out.weight.fill_(1)

    parts = Parts(Source(str(tiny_flux)), CPU, torch.float32)
    parts.edits["transformer"] = Ones()
    with parts.using("transformer"):
        assert (parts["transformer"].proj_out.weight == 1).all()
