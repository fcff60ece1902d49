"""Chroma: how its text is cut, and the two places where diffusers treats its mask wrongly."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from chroma_case import CASES
from diffusers import ChromaPipeline
from family_contract import check_checkpointing, check_parity, gradients
from family_subject import Subject, loaded

from extensions_built_in.chroma import family as module
from toolkit.assets.tiny_text import TEXT_LENGTH
from toolkit.models.conditions import collate

HALF = torch.tensor([0.5, 0.5], dtype=torch.float64)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(CASES["chroma"], tmp_path_factory.mktemp("chroma") / "tiny")


def test_the_text_is_the_words_and_one_pad(subject: Subject):
    family = subject.build()
    with loaded(family), torch.no_grad():
        tokenizer = family.parts["tokenizer"]
        short, long = family.encode_prompt(["two dogs", "dogs " * 100])
        assert len(short["text"]) == len(tokenizer("two dogs").input_ids) + 1
        assert len(long["text"]) == TEXT_LENGTH


def test_the_contract_notices_the_mask_of_floats(subject: Subject):
    floats = Subject.__new__(Subject)
    floats.__dict__ |= subject.__dict__ | {"pipeline": quiet(ChromaPipeline.from_pretrained(subject.folder))}
    with pytest.raises(AssertionError, match="latents: off by"):
        check_parity(floats, subject.build())


def quiet(pipeline: ChromaPipeline) -> ChromaPipeline:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_contract_notices_checkpoints_without_the_mask(subject: Subject, monkeypatch: pytest.MonkeyPatch):
    plain = gradients(subject, subject.build())
    monkeypatch.setattr(module, "masked_checkpoints", lambda transformer, mask: nullcontext())
    with pytest.raises(AssertionError):
        check_checkpointing(subject, subject.build(checkpointing=True), plain)


def test_checkpoints_are_recomputed_with_the_mask_of_their_own_pass(subject: Subject):
    """Two forward passes with different masks, then their backward passes: as preference losses do."""
    gradients = []
    for checkpointing in (False, True):
        with loaded(subject.build(checkpointing=checkpointing)) as family:
            family.denoiser.train().requires_grad_(True)
            noisy = subject.noise(family)
            texts = (["two dogs", "a red circle on a blue background"], ["a photo of a cat, detailed", "two"])
            with torch.no_grad():
                conds = [collate(family.encode_prompt(pair)) for pair in texts]
            losses = [family.predict(noisy, HALF, cond).square().mean() for cond in conds]
            for loss in losses:
                loss.backward()
            gradients.append([param.grad for param in family.denoiser.parameters() if param.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-4, atol=1e-6)


def test_texts_of_one_length_need_no_mask(subject: Subject):
    family = subject.build()
    seen = []
    with loaded(family), torch.no_grad():
        family.denoiser.register_forward_pre_hook(
            lambda net, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        )
        (row,) = family.encode_prompt(["two dogs"])
        family.predict(subject.noise(family), HALF, collate([row, row]))
    assert seen == [None]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_that_see_nothing_do_not_spoil_a_batch_on_a_gpu(subject: Subject):
    """Pads of the shorter text are masked as queries too, which kernels may answer with NaN."""
    family, device = subject.build(), torch.device("cuda")
    with loaded(family):
        with torch.no_grad():
            cond = collate(family.encode_prompt(["two dogs", "a red circle on a blue background"]))
            wanted = family.predict(subject.noise(family), HALF, cond)
        family.denoiser.to(device).requires_grad_(True)
        with torch.autocast("cuda", torch.bfloat16):
            found = family.predict(subject.noise(family).to(device), HALF, cond.to(device))
        found.float().square().mean().backward()
        grads = [param.grad for param in family.denoiser.parameters() if param.grad is not None]
    assert (found.detach().float().cpu() - wanted).abs().max() < wanted.abs().mean()
    assert all(grad.isfinite().all() for grad in grads)
