"""The layer-choice rules of ai-toolkit, counts per pattern, and warnings where a substring test surprises."""

from __future__ import annotations

import pytest
import torch

from toolkit.networks.targets import Choice, adaptable_layers, choose

BLOCKS = r"(transformer_blocks|single_transformer_blocks)\..*"
PREFIX = "transformer."
LAYERS = [
    "x_embedder",
    "proj_out",
    *(f"transformer_blocks.{i}.attn.{name}" for i in range(12) for name in ("to_q", "add_q_proj")),
    *(f"single_transformer_blocks.{i}.{name}" for i in range(12) for name in ("attn.to_q", "proj_out")),
]


def chosen(only: list[str] | None = None, ignore: list[str] | None = None, blocks: str | None = BLOCKS) -> Choice:
    return choose(LAYERS, PREFIX, blocks, only or [], ignore or [])


def test_by_default_all_layers_in_blocks():
    choice = chosen()
    assert set(choice.names) == set(LAYERS) - {"x_embedder", "proj_out"}
    assert choice.matches == () and choice.warnings == ()
    assert set(chosen(blocks=None).names) == set(LAYERS)


@pytest.mark.parametrize(
    "pattern",
    [
        "transformer.single_transformer_blocks.7.proj_out",
        "transformer_single_transformer_blocks_7_proj_out",
        "transformer$$single_transformer_blocks$$7$$proj_out",
        "single_transformer_blocks.7.proj_out",
    ],
)
def test_only_takes_dots_underscores_and_dollars(pattern: str):
    choice = chosen([pattern])
    assert choice.names == ("single_transformer_blocks.7.proj_out",)
    assert choice.matches == ((pattern, 1),) and choice.warnings == ()


def test_any_of_several_patterns_is_enough():
    choice = chosen(["transformer.transformer_blocks.3.", "single_transformer_blocks.4."])
    assert len(choice.names) == 4
    assert choice.matches == (("transformer.transformer_blocks.3.", 2), ("single_transformer_blocks.4.", 2))


def test_ignore_wins_and_counts():
    choice = chosen(["to_q"], ["transformer.single_transformer_blocks."])
    assert choice.names == tuple(f"transformer_blocks.{i}.attn.to_q" for i in range(12))
    assert choice.matches == (("to_q", 24), ("transformer.single_transformer_blocks.", 24))


def test_ignore_reads_dots_only():
    assert len(chosen(ignore=["attn_to_q"]).names) == 48
    assert len(chosen(ignore=["attn.to_q"]).names) == 24


def test_a_number_that_also_matches_longer_ones_is_warned_about():
    choice = chosen(["single_transformer_blocks.1"])
    assert len(choice.names) == 6  # 1, 10, 11
    assert len(choice.warnings) == 1
    assert "'single_transformer_blocks.1' also matches longer numbers, e.g. transformer.single" in choice.warnings[0]
    assert chosen(["single_transformer_blocks.1."]).warnings == ()


def test_a_name_that_also_matches_inside_a_longer_one_is_warned_about():
    choice = chosen(["transformer_blocks.5."])
    assert len(choice.names) == 4
    assert "also matches inside longer names, e.g. transformer.single_transformer_blocks.5" in choice.warnings[0]
    assert chosen(["transformer.transformer_blocks.5."]).warnings == ()


def test_a_pattern_without_a_match_is_warned_about():
    choice = chosen(["to_q", "0.*"])
    assert choice.matches[1] == ("0.*", 0)
    assert choice.warnings == ("only_if_contains '0.*' matches no layer (it is a plain substring, not a glob)",)


@pytest.mark.parametrize(("only", "ignore"), [(["0.*"], []), (["proj_mlp"], []), ([], ["transformer."])])
def test_nothing_left_is_an_error_with_the_patterns(only: list[str], ignore: list[str]):
    with pytest.raises(ValueError, match=r"no layer is left to train of 48; patterns and their matches: '.*': \d+"):
        chosen(only, ignore)


def test_adaptable_layers_are_all_linear_ones():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert adaptable_layers(module) == ["0", "2.0"]
