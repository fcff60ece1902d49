"""Extracting on plain modules: what is taken, what is left out, ranks that loaders mistake, and memory."""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from toolkit.models.family import Trainable
from toolkit.models.pair import Pair
from toolkit.networks.attached import change
from toolkit.networks.extract import BIASES, CONVOLUTIONS, OTHERS, OUTSIDE, Extraction, Rules, extract, pad_namesakes

CPU = torch.device("cpu")
INSIDE = Trainable("unet", blocks=r"blocks\..*", prefix="unet.")


class Small(nn.Module):
    """A layer of every kind, in blocks and outside."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.ModuleDict(
            {
                "linear": nn.Linear(12, 20),
                "point": nn.Conv2d(4, 6, 1),
                "conv": nn.Conv2d(4, 6, 3),
                "norm": nn.LayerNorm(5),
            }
        )
        self.blocks = nn.ModuleList([block])
        self.out = nn.Linear(7, 9)
        self.table = nn.Parameter(torch.zeros(3))


def tensors(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn_like(tensor) for name, tensor in Small().state_dict().items()}


def extracted(base: dict[str, Tensor], tuned: dict[str, Tensor], rules: Rules) -> Extraction:
    found = Extraction()
    extract(Pair(Small(), base, tuned, lambda: None), INSIDE, rules, CPU, torch.float32, found)
    return found


def by_layer(found: Extraction) -> dict[str, dict[str, Tensor]]:
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.tensors.items():
        layer, _, suffix = (
            name.removeprefix("unet.").replace(".lora_", "/lora_").replace(".diff", "/diff").partition("/")
        )
        grouped.setdefault(layer, {})[suffix] = tensor
    return grouped


def test_without_convolutions_only_linear_and_pointwise_layers_in_the_blocks_are_taken() -> None:
    base, tuned = tensors(0), tensors(1)
    found = extracted(base, tuned, Rules("fixed", 100))
    layers = by_layer(found)
    assert set(layers) == {"blocks.0.linear", "blocks.0.point"}
    for name, layer in layers.items():
        wanted = tuned[f"{name}.weight"] - base[f"{name}.weight"]
        torch.testing.assert_close(change(layer, tuple(wanted.shape)), wanted, rtol=1e-4, atol=1e-5)
    assert layers["blocks.0.point"]["lora_B.weight"].shape == (6, 4, 1, 1)
    counts = {why: len(names) for why, names in found.left_out.items()}
    assert counts == {BIASES: 5, CONVOLUTIONS: 1, OTHERS: 2, OUTSIDE: 1}
    assert found.left_out[OUTSIDE] == ["unet.out.weight"]


def test_everything_is_given_back_with_convolutions_all_layers_and_differences() -> None:
    base, tuned = tensors(0), tensors(1)
    found = extracted(base, tuned, Rules("ratio", 0, 0, blocks_only=False, whole=True))
    assert found.left_out == {OTHERS: ["unet.table"]}, "no file of a network has a name for a bare parameter"
    layers = by_layer(found)
    assert set(layers["blocks.0.conv"]) == {"lora_A.weight", "lora_B.weight", "diff_b"}
    assert layers["blocks.0.conv"]["lora_A.weight"].shape == (6, 4, 3, 3)
    for name, layer in layers.items():
        weight = {suffix: tensor for suffix, tensor in layer.items() if suffix != "diff_b"}
        wanted = tuned[f"{name}.weight"] - base[f"{name}.weight"]
        torch.testing.assert_close(change(weight, tuple(wanted.shape)), wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer["diff_b"], tuned[f"{name}.bias"] - base[f"{name}.bias"])
    assert found.energy == pytest.approx(1, abs=1e-5)


def test_energy_is_the_share_of_the_squared_norm_that_is_kept() -> None:
    base, tuned = tensors(0), tensors(1)
    found = extracted(base, tuned, Rules("fixed", 2))
    (report,) = [layer for layer in found.layers if layer.name == "unet.blocks.0.linear"]
    wanted = tuned["blocks.0.linear.weight"] - base["blocks.0.linear.weight"]
    lost = wanted - change(by_layer(found)["blocks.0.linear"], tuple(wanted.shape))
    assert report.energy == pytest.approx(1 - float(lost.norm() ** 2 / wanted.norm() ** 2), abs=1e-5)
    assert (report.rank, report.shape, report.norm) == (2, (20, 12), pytest.approx(float(wanted.norm())))
    assert 0 < found.energy < 1


def test_what_is_the_same_is_left_out_also_in_another_precision() -> None:
    base = tensors(0)
    tuned = {name: tensor.half() for name, tensor in base.items()}
    tuned["blocks.0.linear.weight"] = (base["blocks.0.linear.weight"] + 0.5).half()
    found = extracted(base, tuned, Rules("threshold", 1e-2))
    assert list(by_layer(found)) == ["blocks.0.linear"]
    assert (found.same, found.layers[0].rank, found.left_out) == (len(base) - 1, 1, {})


def test_a_largest_rank_holds_in_every_mode() -> None:
    base, tuned = tensors(0), tensors(1)
    for mode, number in (("fixed", 9), ("threshold", 0), ("ratio", 0), ("quantile", 1)):
        found = extracted(base, tuned, Rules(mode, number, most=3))  # type: ignore[arg-type]
        assert {layer.rank for layer in found.layers} == {3}


def test_other_shapes_are_an_error() -> None:
    base = tensors(0)
    tuned = base | {"out.weight": torch.zeros(9, 8)}
    with pytest.raises(ValueError, match=r"out\.weight is \[9, 7\] in the base and \[9, 8\] .*two architectures"):
        extracted(base, tuned, Rules("fixed", 4))


def test_values_that_are_no_numbers_are_named() -> None:
    base = tensors(0)
    broken = base | {"blocks.0.linear.weight": torch.full((20, 12), torch.nan)}
    with pytest.raises(ValueError, match=r"unet\.blocks\.0\.linear: one of the checkpoints has values"):
        extracted(base, broken, Rules("fixed", 4))


def test_a_difference_whose_squares_are_nothing_is_kept() -> None:
    base = tensors(1)
    base["blocks.0.linear.weight"] *= 0
    small = {**base, "blocks.0.linear.weight": base["blocks.0.linear.weight"] + 1e-25}
    assert [layer.energy for layer in extracted(base, small, Rules("fixed", 2)).layers] == [1.0]


def test_layers_whose_names_end_alike_get_one_rank() -> None:
    ranks = {"proj_out": 5, "blocks.0.proj_out": 2, "blocks.1.proj_out": 3, "blocks.0.proj": 1}
    found = Extraction()
    for name, rank in ranks.items():
        found.tensors |= {
            f"x.{name}.lora_A.weight": torch.ones(rank, 4),
            f"x.{name}.lora_B.weight": torch.ones(6, rank),
        }
    kept = {name: found.tensors[f"x.{name}.lora_B.weight"] @ found.tensors[f"x.{name}.lora_A.weight"] for name in ranks}
    pad_namesakes(found, "x.")
    after = {name: len(found.tensors[f"x.{name}.lora_A.weight"]) for name in ranks}
    assert after == {"proj_out": 5, "blocks.0.proj_out": 5, "blocks.1.proj_out": 5, "blocks.0.proj": 1}
    for name, product in kept.items():
        down, up = (found.tensors[f"x.{name}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(up @ down, product)


def test_layers_of_two_text_encoders_that_are_called_alike_keep_their_ranks() -> None:
    found = Extraction()
    for part, rank in (("text_encoder", 2), ("text_encoder_2", 3)):
        name = f"{part}.text_model.encoder.layers.0.mlp.fc1"
        found.tensors |= {f"{name}.lora_A.weight": torch.ones(rank, 4), f"{name}.lora_B.weight": torch.ones(6, rank)}
        pad_namesakes(found, f"{part}.")
    assert [len(tensor) for name, tensor in found.tensors.items() if "lora_A" in name] == [2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_a_few_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # runpy rather than an import: scripts/ is no package
    script = runpy.run_path(str(Path(__file__).parents[3] / "scripts/bench_extract.py"))
    base, tuned = script["write_pair"](tmp_path, layers=24, width=768)
    options = argparse.Namespace(layers=24, width=768, rank=4, mode="fixed", device="cpu")
    layer, files = 4 * 768 * 768 * 4, base.stat().st_size + tuned.stat().st_size
    assert script["measure"](base, tuned, options) < 6 * layer < files / 2
    assert "peak memory" in capsys.readouterr().out
