"""The module `aitk`: what it offers is what its page says, and each name can be had."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_names_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import aitk

    assert set(re.findall(r"\baitk\.(\w+)", (ROOT / "docs/python.md").read_text(encoding="utf-8"))) <= set(aitk.API)
    with pytest.raises(aitk.ConfigError, match="missing: the kind of job"):
        aitk.get_job({"config": {}})
    assert all(getattr(aitk, name) is not None for name in aitk.API)
