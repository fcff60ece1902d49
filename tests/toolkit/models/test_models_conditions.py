"""Rows become batches: stacked, padded with a mask, or refused; known frames are held."""

from __future__ import annotations

import pytest
import torch

from toolkit.models.conditions import Conditions, collate, hold, signature


def row(tokens: int = 3, width: int = 4, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"text": torch.arange(1.0, tokens * width + 1).view(tokens, width), "pooled": torch.ones(5), **more}


def test_equal_shapes_are_stacked_without_lengths():
    cond = collate([row(), row()])
    assert cond["text"].shape == (2, 3, 4) and cond["pooled"].shape == (2, 5)
    assert cond.lengths == {} and cond.mask("text").dtype == torch.bool and cond.mask("text").all()


def test_token_axes_are_padded_with_zeros_and_masked():
    cond = collate([row(3), row(1), row(2)])
    assert cond.lengths == {"text": (3, 1, 2)}
    assert cond.mask("text").tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert not cond["text"][~cond.mask("text")].any()
    torch.testing.assert_close(cond["text"][2, :2], row(2)["text"])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (row(size=torch.zeros(6)), r"the same conditions: \['pooled', 'text'\] and \['pooled', 'size', 'text'\]"),
        (row(width=5), r"'text' cannot share a batch: shapes \[\(3, 4\), \(3, 5\)\]"),
        ({**row(), "pooled": torch.ones(6)}, r"'pooled' cannot share a batch: shapes \[\(5,\), \(6,\)\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(other: dict[str, torch.Tensor], told: str):
    with pytest.raises(ValueError, match=told):
        collate([row(), other])


def test_pictures_of_two_sizes_are_refused_and_have_two_signatures():
    small, large = (row(**{"reference.0": torch.zeros(4, 2, side)}) for side in (2, 3))
    with pytest.raises(ValueError, match=r"reference\.0"):
        collate([small, large])
    assert signature(small) != signature(large)
    assert signature(row(control=torch.zeros(4, 2, 2))) != signature(row(control=torch.zeros(5, 2, 2)))


def test_signature_ignores_only_the_number_of_tokens():
    assert signature(row(3)) == signature(row(7)) == signature(dict(reversed(row().items())))
    assert signature(row()) != signature(row(width=5)) != signature(row(guidance=torch.tensor(1.0)))


def test_numbered_conditions_come_in_order_and_end_at_a_gap():
    parts = {f"reference.{i}": torch.full((1,), float(i)) for i in (1, 0, 2, 4)}
    assert [tensor.item() for tensor in Conditions(parts).numbered("reference")] == [0, 1, 2]
    assert Conditions(parts).numbered("control") == [] and Conditions(parts).get("control") is None


def test_plus_keeps_the_original_and_the_lengths():
    cond = collate([row(3), row(1)])
    more = cond.plus(guidance=torch.ones(2))
    assert more.lengths == cond.lengths and "guidance" in more.parts and "guidance" not in cond.parts


def test_to_casts_floats_and_leaves_integers():
    cond = collate([row(3, ids=torch.tensor([7])), row(1, ids=torch.tensor([8]))])
    moved = cond.to(torch.device("cpu"), torch.bfloat16)
    assert moved["text"].dtype == torch.bfloat16 and moved["ids"].dtype == torch.int64
    assert moved.lengths == cond.lengths
    assert cond.to(torch.device("cpu"))["text"].dtype == torch.float32


def test_given_frames_replace_the_first_ones():
    noisy, given = torch.zeros(2, 4, 3, 2, 2, dtype=torch.bfloat16), torch.ones(2, 4, 1, 2, 2)
    held = hold(noisy, Conditions({"given": given}))
    assert held.shape == noisy.shape and held.dtype == noisy.dtype
    assert (held[:, :, 0] == 1).all() and not held[:, :, 1:].any() and not noisy.any()
    assert hold(noisy, Conditions({})) is noisy
