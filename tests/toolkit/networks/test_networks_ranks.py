"""Sizes of updates: by kind of layer and by block, and how blocks are numbered."""

from __future__ import annotations

import pytest

from toolkit.networks.ranks import Ranks, Size, number_blocks

DIT = ["transformer_blocks.0.a", "transformer_blocks.1.a", "single_transformer_blocks.0.a", "transformer_blocks.0.b"]


def test_linear_layers_and_convolutions():
    layers = {"a": False, "b": True}
    assert Ranks(8, 4.0).sizes(layers, list(layers)) == {"a": Size(8, 4.0), "b": Size(0, 0.0)}
    assert Ranks(8, 4.0, conv=3).sizes(layers, [])["b"] == Size(3, 3.0)
    assert Ranks(8, 4.0, conv=3, conv_alpha=1.5).sizes(layers, [])["b"] == Size(3, 1.5)


def test_blocks_of_any_kind_are_numbered_in_their_order():
    numbers, count = number_blocks([*DIT, "proj_out"])
    assert count == 3 and numbers == dict(zip(DIT, [0, 1, 2, 0], strict=True))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("conv_in", 0),
        ("time_embedding.linear_1", 0),
        ("down_blocks.0.resnets.0.conv1", 1),
        ("down_blocks.0.attentions.1.proj_in", 2),
        ("down_blocks.0.downsamplers.0.conv", 3),
        ("down_blocks.3.resnets.1.conv1", 11),
        ("mid_block.attentions.0.proj_in", 12),
        ("up_blocks.0.resnets.0.conv1", 13),
        ("up_blocks.1.upsamplers.0.conv", 18),
        ("up_blocks.3.attentions.2.proj_in", 24),
    ],
)
def test_blocks_of_a_unet_are_numbered_as_kohya_does(name: str, number: int):
    numbers, count = number_blocks([name, "mid_block.x"])
    assert (numbers[name], count) == (number, 25)


def test_numbers_per_block():
    layers = dict.fromkeys([*DIT, "proj_out"], False) | {"transformer_blocks.1.conv": True}
    ranks = Ranks(8, 4.0, conv=2, block_linear=[1, 0, 3], block_alphas=[0.5, 1, 1], block_conv=[5, 6, 7])
    sizes = ranks.sizes(layers, DIT)
    assert [sizes[name] for name in DIT] == [Size(1, 0.5), Size(0, 1.0), Size(3, 1.0), Size(1, 0.5)]
    assert sizes["proj_out"] == Size(8, 4.0), "what lies outside of the blocks"
    plain = Ranks(8, 4.0, block_linear=[1, 2, 3])
    assert plain.sizes(layers, DIT)["transformer_blocks.1.a"] == Size(2, 2.0)
    assert plain.without_blocks().sizes(layers, DIT)["transformer_blocks.1.a"] == Size(8, 4.0)
    with pytest.raises(ValueError, match="block_dims: has 2 numbers, the model 3 blocks"):
        Ranks(8, 4.0, block_linear=[1, 2]).sizes(layers, DIT)
