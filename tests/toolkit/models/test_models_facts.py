"""What families read from the configuration of a checkpoint, without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.models.facts import text_length, transformer_facts
from toolkit.models.source import Source

CONFIGS = {
    "model_index.json": {"_class_name": "FluxPipeline"},
    "vae/config.json": {"latent_channels": 16, "block_out_channels": [128, 256, 512, 512]},
    "scheduler/scheduler_config.json": {"shift": 3.0},
    "tokenizer/tokenizer_config.json": {"model_max_length": 77},
    "tokenizer_2/tokenizer_config.json": {"model_max_length": int(1e30)},
    "tokenizer_3/tokenizer_config.json": {},
}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for name, config in CONFIGS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(config))
    return Source(str(tmp_path))


def test_facts_of_a_transformer(source: Source):
    facts = transformer_facts(source, "net", r"blocks\..*", cells=4)
    assert (facts.channels, facts.stride, facts.multiple, facts.base_model) == (16, 8, 32, "net")
    assert facts.scheduler == {"shift": 3.0}
    (trainable,) = facts.trainables
    assert (trainable.part, trainable.blocks, trainable.prefix) == ("transformer", r"blocks\..*", "transformer.")


@pytest.mark.parametrize(("tokenizer", "length"), [("tokenizer", 77), ("tokenizer_2", 512), ("tokenizer_3", 512)])
def test_texts_are_as_long_as_network_and_tokenizer_allow(source: Source, tokenizer: str, length: int):
    assert text_length(source, tokenizer, 512) == length
