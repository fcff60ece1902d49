"""What is special in Ideogram 4 beyond the contract test: which of its transformers answers a row without text."""

from pathlib import Path

import pytest
import torch
from family_subject import Case, Subject, loaded

from extensions_built_in.ideogram4.tiny import save_tiny
from toolkit.data.cache.rows import RowCache, key_for
from toolkit.models.conditions import collate


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(Case("ideogram4", save_tiny), tmp_path_factory.mktemp("ideogram4") / "tiny")


def test_only_samples_are_guided_by_the_other_transformer(subject: Subject):
    family, t = subject.build(), torch.tensor([0.5], dtype=torch.float64)
    with loaded(family), torch.no_grad():
        (empty,) = subject.rows(family, ["anything"], negative=True)
        noisy, cond = subject.noise(family, 1), collate([empty])
        family.denoiser.train()
        dropped = family.predict(noisy, t, cond)
        family.denoiser.eval()
        guiding = family.predict(noisy, t, cond)
        family.parts["transformer"].load_state_dict(family.parts["unconditional_transformer"].state_dict())
        family.denoiser.train()
        assert torch.equal(family.predict(noisy, t, cond), guiding)
    assert (dropped - guiding).abs().max() > 1e-3


def test_a_dropped_caption_shares_a_batch_and_a_cache_with_others(subject: Subject, tmp_path: Path):
    family, t = subject.build(), torch.tensor([0.5, 0.5], dtype=torch.float64)
    with loaded(family), torch.no_grad():
        (row,), (empty,) = subject.rows(family, ["two dogs"]), subject.rows(family, [""], negative=True)
        cache = RowCache(tmp_path)
        cache.put(key_for(text=""), empty)
        cache.flush()
        stored = RowCache(tmp_path).get(key_for(text=""))
        assert stored["text"].shape == (0, row["text"].shape[1])
        family.denoiser.train()
        noisy = subject.noise(family, 2)
        together = family.predict(noisy, t, collate([row, stored]))
        alone = family.predict(noisy[1:], t[1:], collate([stored]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)
