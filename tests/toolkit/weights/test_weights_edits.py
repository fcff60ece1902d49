"""Another strength and another rank of one file, on its own key names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toolkit.networks.attached import change
from toolkit.networks.keys.rows import fold_alpha
from toolkit.networks.keys.suffixes import split_key
from toolkit.weights.edits import rescale, resize

STEM = "lora_unet_input_blocks_1_1_proj_in"


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


KINDS: dict[str, dict[str, Tensor]] = {
    "kohya": {"lora_down.weight": draw(4, 8, seed=1), "lora_up.weight": draw(8, 4, seed=2), "alpha": torch.tensor(2.0)},
    "peft": {"lora_A.weight": draw(4, 8, seed=1), "lora_B.weight": draw(8, 4, seed=2)},
    "cp": {
        "lora_down.weight": draw(4, 8, 1, 1, seed=1),
        "lora_mid.weight": draw(4, 4, 1, 1, seed=3),
        "lora_up.weight": draw(8, 4, 1, 1, seed=2),
    },
    "loha": {f"hada_w{n}_{s}": draw(*((8, 4) if s == "a" else (4, 8)), seed=n) for n in (1, 2) for s in "ab"},
    "lokr": {"lokr_w1": draw(2, 2, seed=1), "lokr_w2_a": draw(4, 2, seed=2), "lokr_w2_b": draw(2, 4, seed=3)},
    "lokr parts": {
        "lokr_w1_a": draw(2, 1, seed=1),
        "lokr_w1_b": draw(1, 2, seed=4),
        "lokr_w2": draw(4, 4, seed=2),
        "alpha": torch.tensor(3.0),
    },
    "full": {"diff": draw(8, 8, seed=1)},
}


def named(kind: str) -> dict[str, Tensor]:
    return {f"{STEM}.{suffix}": tensor for suffix, tensor in KINDS[kind].items()}


def update(tensors: dict[str, Tensor]) -> Tensor:
    own = {(split_key(key) or ("", ""))[1]: tensor for key, tensor in tensors.items()}
    folded = fold_alpha(own, STEM)
    shape = (8, 8, 1, 1) if any(tensor.ndim == 4 for tensor in own.values()) else (8, 8)
    return change(folded, shape)


def test_half_a_layer_is_named() -> None:
    for suffix in ("lora_down", "lora_up"):
        half = {f"{STEM}.{suffix}.weight": draw(4, 8, seed=1)}
        for change_it in (rescale, resize):
            with pytest.raises(ValueError, match=f"{STEM}: .* come in pairs"):
                change_it(half, 2)


def test_a_layer_of_rank_0_stays() -> None:
    none = {f"{STEM}.lora_down.weight": torch.ones(0, 8), f"{STEM}.lora_up.weight": torch.ones(8, 0)}
    with pytest.raises(ValueError, match="no layer with a rank"):
        resize(none, 2)


@pytest.mark.parametrize("factor", [6.0, 0.25, -2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_update_is_multiplied_by_the_factor(kind: str, factor: float) -> None:
    before = named(kind)
    after = rescale(before, factor)
    assert after.keys() == before.keys()
    torch.testing.assert_close(update(after), factor * update(before), atol=1e-4, rtol=1e-4)


def test_the_root_goes_into_both_matrices_or_all_of_it_into_alpha() -> None:
    before = named("kohya")
    both, alone = rescale(before, 9.0), rescale(before, 9.0, "alpha")
    torch.testing.assert_close(both[f"{STEM}.lora_up.weight"], 3 * before[f"{STEM}.lora_up.weight"])
    assert both[f"{STEM}.alpha"] == 2 and alone[f"{STEM}.alpha"] == 18
    assert torch.equal(alone[f"{STEM}.lora_down.weight"], before[f"{STEM}.lora_down.weight"])
    torch.testing.assert_close(update(alone), 9 * update(before))
    with pytest.raises(ValueError, match="has no alpha"):
        rescale(named("peft"), 2.0, "alpha")
    with pytest.raises(ValueError, match="is DoRA"):
        rescale(named("kohya") | {f"{STEM}.dora_scale": torch.ones(8, 1)}, 2.0)


@pytest.mark.parametrize("kind", ["kohya", "peft", "cp"])
def test_a_lower_rank_is_the_nearest_one_and_keeps_what_it_says(kind: str) -> None:
    before = named(kind)
    after, (cut,) = resize(before, 2)
    whole = update(before)
    u, s, v = torch.linalg.svd(whole.flatten(1))
    nearest = ((u[:, :2] * s[:2]) @ v[:2]).reshape(whole.shape)
    torch.testing.assert_close(update(after), nearest, atol=1e-4, rtol=1e-4)
    assert (cut.layer, cut.before, cut.after) == (STEM, 4, 2)
    lost = float((update(after) - whole).square().sum() / whole.square().sum())
    assert cut.kept == pytest.approx(1 - lost, abs=1e-4) and 0.3 < cut.kept < 0.999
    assert after.get(f"{STEM}.alpha", 2) == 2 and f"{STEM}.lora_mid.weight" not in after
    same, (cut,) = resize(before, 16)
    torch.testing.assert_close(update(same), whole, atol=1e-4, rtol=1e-4)
    assert (cut.after, cut.kept) == (4, pytest.approx(1))


def test_the_energy_chooses_the_smallest_rank_that_keeps_it() -> None:
    values = torch.tensor([8.0, 4.0, 2.0, 1.0])
    tensors = {"x.lora_A.weight": torch.eye(4, 8), "x.lora_B.weight": torch.eye(8, 4) * values}
    shares = values.square().cumsum(0) / values.square().sum()
    for wanted, rank in ((0.5, 1), (0.9, 2), (0.98, 3), (0.999, 4)):
        _, (cut,) = resize(tensors, None, wanted)
        assert cut.after == rank and cut.kept == pytest.approx(float(shares[rank - 1])) and cut.kept >= wanted
    _, (cut,) = resize(tensors, 2, 0.999)
    assert cut.after == 2


def test_zero_layers_and_full_differences_survive_and_others_are_refused() -> None:
    zero = {"x.lora_A.weight": torch.ones(4, 8), "x.lora_B.weight": torch.zeros(8, 4), "y.diff_b": torch.ones(3)}
    after, (cut,) = resize(zero, 2)
    assert cut.kept == 1 and not (after["x.lora_B.weight"] @ after["x.lora_A.weight"]).any()
    assert torch.equal(after["y.diff_b"], torch.ones(3))
    with pytest.raises(ValueError, match=r"is lokr; .*method svd"):
        resize(named("lokr"), 2)
    with pytest.raises(ValueError, match="no layer with a rank"):
        resize({"y.diff": torch.ones(3, 3)}, 2)
