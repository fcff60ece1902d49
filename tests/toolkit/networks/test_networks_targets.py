"""The layer-choice rules of ai-toolkit, counts per pattern, and warnings where a substring test surprises."""

from __future__ import annotations

import pytest
import torch

from toolkit.models.family import Trainable
from toolkit.networks.ranks import Ranks
from toolkit.networks.targets import Choice, NoLayersLeft, Rules, adaptable_layers, choose, find_targets

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
    with pytest.raises(NoLayersLeft, match=r"no layer is left to train of 48; patterns and their matches: '.*': \d+"):
        chosen(only, ignore)


class Attention(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q, self.norm = torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)


def toy() -> torch.nn.Module:
    """Two blocks, and layers around them."""
    module = torch.nn.Module()
    conv, point, grouped = torch.nn.Conv2d(4, 4, 3), torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 4, 3, groups=4)
    module.embed = torch.nn.Embedding(3, 4)
    module.blocks = torch.nn.ModuleList([Attention(), torch.nn.Sequential(conv, point, grouped, torch.nn.Linear(4, 9))])
    module.out = torch.nn.Linear(4, 2)
    return module


IN_BLOCKS = {"blocks.0.to_q", "blocks.1.1", "blocks.1.3"}


def found(rules: Rules = Rules(), ranks: Ranks = Ranks(2, 2.0)) -> tuple[set[str], set[str]]:
    targets = find_targets(toy(), Trainable("t", r"blocks\..*", "t."), rules, ranks)
    return set(targets.sizes), set(targets.full)


def test_adaptable_layers_are_linear_ones_and_convolutions():
    assert set(adaptable_layers(toy())) == {*IN_BLOCKS, "out"}
    assert set(adaptable_layers(toy(), conv=True)) == {*IN_BLOCKS, "out", "blocks.1.0"}, "grouped ones cannot be"


def test_targets_lie_in_the_blocks_and_have_a_rank():
    assert found() == (IN_BLOCKS, set())
    assert found(ranks=Ranks(2, 2.0, conv=1)) == ({*IN_BLOCKS, "blocks.1.0"}, set())
    assert found(Rules(blocks_only=False)) == ({*IN_BLOCKS, "out"}, set())


def test_small_layers_and_other_classes_are_left_out():
    assert found(Rules(min_params=21)) == ({"blocks.1.3"}, set())
    assert found(Rules(min_params=20)) == (IN_BLOCKS, set())
    assert found(Rules(linear_inside=["Attention"])) == ({"blocks.0.to_q", "blocks.1.1"}, set())
    assert found(Rules(linear_inside=["Attention"], conv_inside=["Attention"])) == ({"blocks.0.to_q"}, set())
    with pytest.raises(NoLayersLeft):
        found(Rules(min_params=1000))


def test_layers_to_train_fully_are_named_or_all():
    assert found(Rules(full=["to_q", "t.out"])) == (IN_BLOCKS - {"blocks.0.to_q"}, {"blocks.0.to_q", "out"})
    assert found(Rules(full=["out"], only=["nothing"])) == (set(), {"out"}), "these alone are something to train"
    assert found(Rules(full=["blocks"], ignore=["norm", "to_q"]))[1] == {f"blocks.1.{i}" for i in range(4)}
    assert found(Rules(all_layers=True)) == (IN_BLOCKS, {"blocks.0.norm", "blocks.1.0", "blocks.1.2"})
    assert found(Rules(all_layers=True, blocks_only=False, ignore=["blocks"])) == ({"out"}, {"embed"})
    assert found(Rules(all_layers=True, min_params=21)) == (
        {"blocks.1.3"},
        {"blocks.0.norm", "blocks.1.0", "blocks.1.2"},
    )
