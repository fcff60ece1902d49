"""Several LoRAs combined into one: exact, cut to a rank, or by the mean of the factors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from toolkit.networks.attached import change
from toolkit.networks.keys.family import names_of
from toolkit.weights.combine import combine
from toolkit.weights.network import NetworkFile, encode, read_network

FLUX = names_of("flux")
CPU = torch.device("cpu")
ATTENTION = "transformer_blocks.0.attn.to_q"
CONV = "down_blocks.0.resnets.0.conv1"


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def network(layers: dict[str, dict[str, Tensor]], name: str = "x") -> NetworkFile:
    return NetworkFile(Path(f"{name}.safetensors"), {}, {("transformer.", key): own for key, own in layers.items()}, ())


def product(rank: int, seed: int, rows: int = 12, columns: tuple[int, ...] = (8,)) -> dict[str, Tensor]:
    ones = (1,) * (len(columns) - 1)
    return {
        "lora_A.weight": draw(rank, *columns, seed=seed),
        "lora_B.weight": draw(rows, rank, *ones, seed=seed + 1),
    }


def matrix(tensors: dict[str, Tensor], shape: tuple[int, ...] = (12, 8)) -> Tensor:
    return change(tensors, shape)


def test_concatenation_is_exact_for_other_ranks_negative_weights_and_convolutions() -> None:
    first = network({ATTENTION: product(2, 0), CONV: product(3, 1, columns=(4, 3, 3))})
    second = network({ATTENTION: product(5, 2), CONV: product(1, 3, columns=(4, 3, 3)), "only": product(2, 9)})
    done = combine([first, second], [0.7, -1.5], "concat", device=CPU)
    for layer, shape in ((ATTENTION, (12, 8)), (CONV, (12, 4, 3, 3))):
        key = ("transformer.", layer)
        exact = 0.7 * matrix(first.layers[key], shape) - 1.5 * matrix(second.layers[key], shape)
        torch.testing.assert_close(matrix(done.layers[key], shape), exact, atol=1e-5, rtol=1e-5)
    assert done.layers[("transformer.", ATTENTION)]["lora_A.weight"].shape == (7, 8)
    assert done.layers[("transformer.", CONV)]["lora_B.weight"].shape == (12, 4, 1, 1)
    alone = done.layers[("transformer.", "only")]
    torch.testing.assert_close(matrix(alone), -1.5 * matrix(second.layers[("transformer.", "only")]))


def test_svd_gives_the_nearest_matrix_of_the_rank_and_says_what_it_keeps() -> None:
    files = [network({ATTENTION: product(3, seed)}) for seed in (0, 5)]
    key = ("transformer.", ATTENTION)
    exact = matrix(files[0].layers[key]) + 0.5 * matrix(files[1].layers[key])
    done = combine(files, [1, 0.5], "svd", rank=4, device=CPU)
    u, s, v = torch.linalg.svd(exact, full_matrices=False)
    torch.testing.assert_close(matrix(done.layers[key]), (u[:, :4] * s[:4]) @ v[:4], atol=1e-4, rtol=1e-4)
    assert done.layers[key]["lora_A.weight"].shape == (4, 8)
    energy = float(s[:4].square().sum() / s.square().sum())
    assert done.kept["transformer." + ATTENTION] == pytest.approx(energy, abs=1e-5)
    full = combine(files, [1, 0.5], "svd", rank=6, device=CPU)
    torch.testing.assert_close(matrix(full.layers[key]), exact, atol=1e-4, rtol=1e-4)


def test_the_energy_chooses_the_rank_of_each_layer() -> None:
    strong = {"lora_A.weight": torch.eye(4, 8), "lora_B.weight": torch.eye(12, 4) * torch.tensor([10.0, 1, 1, 1])}
    flat = {"lora_A.weight": torch.eye(4, 8), "lora_B.weight": torch.eye(12, 4)}
    done = combine([network({ATTENTION: strong, "flat": flat})], [1], "svd", energy=0.95, device=CPU)
    ranks = {layer: len(own["lora_A.weight"]) for (_, layer), own in done.layers.items()}
    assert ranks == {ATTENTION: 1, "flat": 4}
    assert done.kept["transformer." + ATTENTION] == pytest.approx(100 / 103)


def test_the_mean_of_factors_gives_equal_files_back_and_says_how_far_others_are_off() -> None:
    same = network({ATTENTION: product(3, 0)})
    key = ("transformer.", ATTENTION)
    done = combine([same, same], [0.5, 1.5], "sum", device=CPU)
    torch.testing.assert_close(matrix(done.layers[key]), 2 * matrix(same.layers[key]), atol=1e-5, rtol=1e-5)
    assert done.errors["transformer." + ATTENTION] < 1e-5
    other = network({ATTENTION: product(3, 7)})
    done = combine([same, other], [0.5, 0.5], "sum", device=CPU)
    exact = 0.5 * matrix(same.layers[key]) + 0.5 * matrix(other.layers[key])
    off = float((matrix(done.layers[key]) - exact).norm() / exact.norm())
    assert done.errors["transformer." + ATTENTION] == pytest.approx(off, rel=1e-4) and off > 0.3


def test_other_networks_are_summed_where_that_is_exact() -> None:
    diff = {"diff": draw(12, 8), "diff_b": draw(12)}
    lokr = {"lokr_w1": draw(3, 2), "lokr_w2": draw(4, 4)}
    loha = {"hada_w1_a": draw(12, 2), "hada_w1_b": draw(2, 8), "hada_w2_a": draw(12, 2), "hada_w2_b": draw(2, 8)}
    key = ("transformer.", ATTENTION)
    done = combine([network({ATTENTION: diff}), network({ATTENTION: product(2, 0)})], [2, 3], "concat", device=CPU)
    torch.testing.assert_close(done.layers[key]["diff"], 2 * diff["diff"] + 3 * matrix(product(2, 0)))
    torch.testing.assert_close(done.layers[key]["diff_b"], 2 * diff["diff_b"])
    done = combine([network({ATTENTION: lokr}), network({ATTENTION: loha})], [1, -1], "svd", rank=8, device=CPU)
    torch.testing.assert_close(matrix(done.layers[key]), matrix(lokr) - matrix(loha), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "method", "weights", "text"),
    [
        ([product(2, 0), product(3, 0)], "sum", [1, 1], "equal ranks"),
        ([product(2, 0), product(2, 0)], "sum", [1, -1], "add up to more than 0"),
        ([product(2, 0), product(2, 0, rows=6)], "concat", [1, 1], "belong to other models"),
        ([{"lokr_w1": draw(3, 2), "lokr_w2": draw(4, 4)}], "concat", [1], "take method svd"),
        ([product(2, 0) | {"lora_magnitude_vector": draw(12)}], "svd", [1], "DoRA"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    layers: list[dict[str, Tensor]], method: str, weights: list[float], text: str
) -> None:
    files = [network({ATTENTION: own}, str(number)) for number, own in enumerate(layers)]
    with pytest.raises(ValueError, match=text):
        combine(files, weights, method, rank=2, device=CPU)


def test_a_number_that_is_none_is_refused_before_it_spreads(tmp_path: Path) -> None:
    weights = {f"transformer.{ATTENTION}.{key}": tensor for key, tensor in product(2, 0).items()}
    weights[f"transformer.{ATTENTION}.lora_B.weight"][3, 1] = float("nan")
    save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match=r"broken\.safetensors: .*lora_B\.weight holds NaN"):
        read_network(tmp_path / "broken.safetensors", FLUX)


def test_files_of_other_key_formats_and_alphas_meet_in_native_names(tmp_path: Path) -> None:
    dim = 8
    parts = {f"transformer_blocks.0.attn.to_{p}": product(2, number, dim) for number, p in enumerate("qkv")}
    native = network(parts).layers
    save_file(encode(native, FLUX, "diffusers"), tmp_path / "a.safetensors")
    fused = encode(native, FLUX, "kohya")
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    assert set(fused) == {f"{stem}.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")}
    fused[f"{stem}.alpha"] = fused[f"{stem}.alpha"] * 3
    save_file({key: tensor.contiguous() for key, tensor in fused.items()}, tmp_path / "b.safetensors")
    files = [read_network(tmp_path / f"{name}.safetensors", FLUX) for name in "ab"]
    done = combine(files, [1, 1], "concat", device=CPU)
    assert done.layers.keys() == native.keys()
    for key, own in native.items():
        torch.testing.assert_close(matrix(done.layers[key], (8, 8)), 4 * matrix(own, (8, 8)), atol=1e-5, rtol=1e-5)
