"""CogView4's own: captions of several lengths, the time that its network is told."""

from __future__ import annotations

import pytest
import torch
from cogview4_case import CASES
from family_contract import TIMES, assert_near
from family_subject import Subject, loaded

from toolkit.models.conditions import collate
from toolkit.models.family import Family

LONG = "a photo of a cat, detailed two dogs on a blue background a red circle two dogs two dogs"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Subject(CASES["cogview4"], tmp_path_factory.mktemp("cogview4")).build()


def test_captions_are_padded_to_16_tokens_and_may_share_a_batch(family: Family):
    noisy = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with loaded(family), torch.no_grad():
        rows = family.encode_prompt([LONG, "two dogs"])
        assert [len(row["text"]) for row in rows] == [32, 16]
        alone = [family.predict(noisy[i : i + 1], TIMES[i : i + 1], collate([row])) for i, row in enumerate(rows)]
        assert_near(family.predict(noisy, TIMES, collate(rows)), torch.cat(alone), "a batch")


@pytest.mark.parametrize(("height", "width"), [(64, 48), (128, 192)])
def test_the_network_is_told_the_time_before_the_shift(family: Family, height: int, width: int):
    """schedule() shifts whole steps to noise levels; predict() undoes it for the same size."""
    h, w = height // family.facts.stride, width // family.facts.stride
    arguments = family.schedule(5, (1, 4, h, w))
    shift, steps = arguments["mu"], torch.tensor(arguments["sigmas"])
    levels = shift / (shift + 1 / steps - 1)
    told: list[torch.Tensor] = []
    with loaded(family), torch.no_grad():
        cond = collate(family.encode_prompt(["two dogs"]))
        hook = family.denoiser.time_condition_embed.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0]))
        for level in levels:
            family.predict(torch.zeros(1, 4, h, w), level[None], cond)
        hook.remove()
    torch.testing.assert_close(torch.cat(told), torch.tensor([1000.0, 750.0, 500.0, 250.0, 1.0]))
