"""Memory peaks one model part at a time, and what a cache holds is not loaded again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolkit.models.source import Source

TEXT = {"text_encoder", "text_encoder_2"}
SAMPLE = {"prompts": ["a cat"], "width": 64, "height": 64, "sample_steps": 1, "sample_every": 0}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, set[str]]]]:
    """Every model part that is loaded, with the parts that are still in memory at that moment."""
    seen: list[tuple[str, set[str]]] = []
    alive: list[tuple[str, Any]] = []
    load = Source.load

    def watched(self: Source, name: str, *options: Any) -> Any:
        part = load(self, name, *options)
        if not name.startswith("tokenizer"):
            seen.append((name, {other for other, reference in alive if reference() is not None}))
            alive.append((name, weakref.ref(part)))
        return part

    monkeypatch.setattr(Source, "load", watched)
    yield seen


def disk(folder: Path) -> list[dict[str, Any]]:
    return [{"folder_path": str(folder), "resolution": 32, "cache_latents_to_disk": True}]


def test_parts_are_in_memory_one_after_another(training: Any, noise_folder: Path, loads: Any) -> None:
    training(datasets=disk(noise_folder), sample=SAMPLE).run()
    names = [name for name, _ in loads]
    assert [name for name in names if name not in TEXT] == ["vae", "transformer", "vae", "vae"]
    assert set(names[1 : names.index("transformer")]) == TEXT
    for name, others in loads[: names.index("transformer") + 1]:
        assert others <= (TEXT if name in TEXT else set()), (name, others)
    # a sampled picture needs the VAE beside the transformer
    assert [others for name, others in loads if name == "vae"][1:] == [{"transformer"}] * 2


def test_a_second_run_loads_neither_vae_nor_text_encoders(training: Any, noise_folder: Path, loads: Any) -> None:
    training("first", datasets=disk(noise_folder)).run()
    loads.clear()
    training("second", datasets=disk(noise_folder)).run()
    assert [name for name, _ in loads] == ["transformer"]


def test_a_resumed_run_with_pictures_loads_no_text_encoder(
    training: Any, noise_folder: Path, signal_at: Any, loads: Any
) -> None:
    from jobs import Stopped

    run = training(datasets=disk(noise_folder), sample=SAMPLE)
    with signal_at("step 2/4"), pytest.raises(Stopped):
        run.run()
    loads.clear()
    run.run()
    assert [name for name, _ in loads] == ["transformer", "vae"]


def test_changing_captions_keep_the_text_encoders_unless_they_are_cached(training: Any, loads: Any) -> None:
    for name, train, during in (("cached", {"cache_text_embeddings": True}, set()), ("fresh", {}, TEXT)):
        loads.clear()
        run = training(name, train=train, sample=SAMPLE)
        dataset = {**run.process["datasets"][0], "shuffle_tokens": True}
        run.but(datasets=[dataset]).run()
        after_transformer = [name for name, _ in loads[[name for name, _ in loads].index("transformer") :]]
        assert set(after_transformer) & TEXT == during


def test_unload_text_encoder_does_so_whatever_captions_do(training: Any, loads: Any) -> None:
    run = training(train={"unload_text_encoder": True}, trigger_word="red")
    dataset = {**run.process["datasets"][0], "shuffle_tokens": True, "random_triggers": ["a", "b"]}
    run.but(datasets=[dataset]).run()
    names = [name for name, _ in loads]
    assert not TEXT & set(names[names.index("transformer") :])
