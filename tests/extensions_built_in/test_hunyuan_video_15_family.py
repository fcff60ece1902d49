"""What is HunyuanVideo 1.5's own: words in quotation marks are read a second time, as glyphs."""

from __future__ import annotations

from pathlib import Path

import torch
from family_contract import assert_differs, assert_near
from family_subject import Subject, loaded
from hunyuan_video_15_case import CASES, encode_prompt

from toolkit.models.conditions import collate

TEXTS = ['a sign that says "two dogs" and \u201ca cat\u201d', "a cat"]
HALF = torch.tensor([0.5], dtype=torch.float64)


def test_quoted_words_are_read_as_glyphs(tmp_path: Path):
    subject = Subject(CASES["hunyuan-video-1.5"], tmp_path / "hunyuan")
    family = subject.build()
    with loaded(family), torch.no_grad():
        quoting, plain = family.encode_prompt(TEXTS)
        wanted, none = encode_prompt(subject.pipeline, TEXTS)["glyphs"]
        assert_near(quoting["glyphs"], wanted, "glyphs")
        assert plain["glyphs"].shape == none.shape == (0, wanted.shape[1])

        noisy = subject.noise(family, 2)
        alone = [family.predict(noisy[i : i + 1], HALF, collate([row])) for i, row in enumerate((quoting, plain))]
        assert_near(family.predict(noisy, HALF.expand(2), collate([quoting, plain])), torch.cat(alone), "a batch")
        without = collate([{**quoting, "glyphs": plain["glyphs"]}])
        assert_differs(alone[0], family.predict(noisy[:1], HALF, without), "glyphs")
