"""The header of saved weights."""

from __future__ import annotations

import json
from typing import Any

from toolkit.training.header import header, text_hash

FACTS: dict[str, Any] = {
    "name": "run",
    "step": 10,
    "epoch": 2,
    "version": "1.2",
    "base_version": "flux.1",
    "base_model": "some/model",
    "config_hash": "0123",
    "network": {"ss_network_dim": "4"},
    "trigger": None,
    "meta": {},
}


def test_all_entries_are_texts_and_groups_are_json() -> None:
    entries = header(**{**FACTS, "meta": {"tags": ["a"], "version": 2, "text": "as it is"}})
    assert all(isinstance(value, str) for value in entries.values())
    assert json.loads(entries["software"]) == {"name": "aitk", "version": "1.2"}
    assert json.loads(entries["training_info"]) == {"step": 10, "epoch": 2}
    assert (entries["tags"], entries["version"], entries["text"]) == ('["a"]', "2", "as it is")
    assert entries["ss_network_dim"] == "4"
    assert entries["base_model"] == entries["ss_sd_model_name"] == "some/model"
    assert (entries["ss_base_model_version"], entries["ss_output_name"], entries["ss_steps"]) == ("flux.1", "run", "10")
    assert entries["config_hash"] == "0123"


def test_only_a_trigger_makes_tags() -> None:
    assert "ss_tag_frequency" not in header(**FACTS)
    assert json.loads(header(**{**FACTS, "trigger": "cat"})["ss_tag_frequency"]) == {"1_cat": {"cat": 1}}


def test_a_hash_is_short_and_depends_on_every_letter() -> None:
    assert len(text_hash("a")) == 16 and text_hash("a") != text_hash("b") and text_hash("a") == text_hash("a")
