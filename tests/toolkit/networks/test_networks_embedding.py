"""Textual inversion: where a word starts, that nothing else changes, how texts are spelled, and the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from toolkit.assets.tiny_text import clip_encoder, clip_tokenizer, t5_encoder, t5_tokenizer
from toolkit.models.family import Facts, Trainable, Vocabulary
from toolkit.models.text import spell_words, tokenize
from toolkit.networks.embedding import LORA_FILE, Embedding, file_name
from toolkit.run_folder import RunFolder
from toolkit.trainer.trained import choose_trained

CAPTIONS = ["a red circle on a blue background", "a large white square"]
CLIP = Vocabulary("tokenizer", "text_encoder", "clip_l")
T5 = Vocabulary("tokenizer_2", "text_encoder_2", "t5xxl")
TEXTS = ["a red circle", "a mochi on a blue background"]


@pytest.fixture
def parts() -> dict[str, Any]:
    """A CLIP and a T5 with their tokenizers, by the names of FLUX."""
    torch.manual_seed(0)
    clip, t5 = clip_tokenizer(CAPTIONS), t5_tokenizer(CAPTIONS)
    encoders = {"text_encoder": clip_encoder(clip), "text_encoder_2": t5_encoder(t5)}
    return {"tokenizer": clip, "tokenizer_2": t5, **encoders}


def taught(parts: dict[str, Any], **options: Any) -> Embedding:
    given = {"trigger": "mochi", "num_tokens": 2, "init_words": "red", **options}
    return Embedding(parts, [CLIP, T5], **given)


def encoded(parts: dict[str, Any], texts: list[str] = TEXTS) -> list[torch.Tensor]:
    ids = [tokenize(parts[name], texts, 24, "cpu") for name in ("tokenizer", "tokenizer_2")]
    return [parts["text_encoder"](ids[0]).pooler_output, parts["text_encoder_2"](ids[1])[0]]


def vectors(parts: dict[str, Any], words: str, tokenizer: str = "tokenizer", encoder: str = "text_encoder") -> Any:
    ids = parts[tokenizer](words, add_special_tokens=False).input_ids
    return parts[encoder].get_input_embeddings().weight[ids]


def test_a_word_starts_from_others_repeated_or_averaged(parts: dict[str, Any]) -> None:
    red, blue, circle, white, square = vectors(parts, "red blue circle white square")
    start = taught(parts, num_tokens=3, init_words="red blue").params["clip_l"]
    torch.testing.assert_close(start, torch.stack([red, blue, red]))
    means = torch.stack([(red + blue + circle) / 3, (white + square) / 2])
    start = taught(parts, trigger="pounded", init_words="red blue circle white square").params["clip_l"]
    torch.testing.assert_close(start, means)
    assert taught(parts, trigger="star", init_words="*").params["t5xxl"].shape == (2, 96)


def test_words_that_cannot_be_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"embedding.trigger: 'circle</w>' is a token already.*tokenizer\)"):
        taught(parts, trigger="circle</w>")
    with pytest.raises(ValueError, match=r"embedding.init_words: 'r\u015f' has no token here.*tokenizer_2\)"):
        taught(parts, trigger="other", init_words="r\u015f")
    with pytest.raises(ValueError, match=r"embedding\.init_words: ''"):
        taught(parts, trigger="another", init_words="")


def test_a_prompt_gets_all_tokens_of_a_word(parts: dict[str, Any]) -> None:
    taught(parts, num_tokens=3)
    tokenizer = parts["tokenizer"]
    spelled = spell_words(tokenizer, ["a mochi, two mochis", "a mochi_1", "no word"])
    assert spelled == ["a mochi mochi_1 mochi_2, two mochi mochi_1 mochi_2s", "a mochi_1", "no word"]
    first = tokenizer.convert_tokens_to_ids("mochi")
    assert [first, first + 1, first + 2] == [i for i in tokenize(tokenizer, ["a mochi"], 24, "cpu")[0] if i >= first]


def test_only_the_new_vectors_learn_and_other_texts_stay_as_they_were(parts: dict[str, Any]) -> None:
    before = encoded(parts, ["a red circle"])
    weights = {name: p.clone() for name, p in parts["text_encoder_2"].named_parameters()}
    embedding = taught(parts)
    (plain,) = embedding.param_groups(lr=1.0)
    optimizer = torch.optim.AdamW(plain["params"], lr=0.1, weight_decay=0.1)
    start = {key: param.detach().clone() for key, param in embedding.params.items()}
    for _ in range(2):
        sum(part.square().sum() for part in encoded(parts)).backward()
        optimizer.step()
    for key, param in embedding.params.items():
        assert (param - start[key]).abs().amin(dim=1).min() > 0, key
    frozen = [p for name in ("text_encoder", "text_encoder_2") for p in parts[name].parameters()]
    assert all(p.grad is None for p in frozen)
    assert all(torch.equal(p, weights[name]) for name, p in parts["text_encoder_2"].named_parameters())
    assert all(map(torch.equal, encoded(parts, ["a red circle"]), before))


def test_strength_goes_from_where_it_started_to_where_it_is(parts: dict[str, Any]) -> None:
    embedding = taught(parts)
    start, (clip, t5) = encoded(parts), (word.vectors.data for word in embedding.words.values())
    clip += 1
    t5 += 1
    trained = encoded(parts)
    with embedding.scaled(0):
        assert all(map(torch.equal, encoded(parts), start))
        with embedding.scaled(5):
            assert all(map(torch.equal, encoded(parts), start))
    with embedding.scaled(0.5):
        halfway = encoded(parts)
    clip -= 0.5
    t5 -= 0.5
    for one, other in zip(encoded(parts), halfway, strict=True):
        torch.testing.assert_close(one, other)
    clip += 0.5
    t5 += 0.5
    assert all(map(torch.equal, encoded(parts), trained))
    assert not any(torch.equal(halfway[n][1], other[n][1]) for n in (0, 1) for other in (start, trained))


def test_a_clip_with_a_legacy_end_token_still_reads_to_the_end_of_the_text(parts: dict[str, Any]) -> None:
    legacy = {"eos_token_id": 2}
    for part in parts["text_encoder"].modules():
        if hasattr(part, "eos_token_id"):
            part.__dict__.update(legacy)
    before = encoded(parts, ["a red circle"])[0]
    taught(parts)
    assert torch.equal(encoded(parts, ["a red circle"])[0], before)
    one, other = encoded(parts, ["a mochi on a blue background", "a mochi on a red background"])[0]
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_are_read_back_and_by_others(parts: dict[str, Any], tmp_path: Path, suffix: str) -> None:
    embedding = taught(parts, suffix=suffix)
    embedding.params["clip_l"].data.add_(1)
    path = tmp_path / f"mochi{suffix}"
    embedding.write(path, torch.float32, {"ss_steps": "1"})
    found = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert {key: tuple(tensor.shape) for key, tensor in found.items()} == {"clip_l": (2, 64), "t5xxl": (2, 96)}
    again = Embedding(
        {**parts, "tokenizer": clip_tokenizer(CAPTIONS), "tokenizer_2": t5_tokenizer(CAPTIONS)},
        [CLIP, T5],
        "mochi",
        2,
        "blue",
        suffix,
    )
    assert again.read(path) == []
    assert all(torch.equal(again.params[key], param) for key, param in embedding.params.items())


def test_one_encoder_has_the_files_that_programs_for_it_read(parts: dict[str, Any], tmp_path: Path) -> None:
    alone = Embedding(parts, [Vocabulary("tokenizer", "text_encoder", "emb_params")], "mochi", 2, "red", ".pt")
    alone.write(tmp_path / "x.pt", torch.float16, {})
    found = torch.load(tmp_path / "x.pt", weights_only=True)
    assert found["name"] == "mochi" and found["string_to_param"]["*"].shape == (2, 64)
    value = torch.ones(2, 64)
    save_file({"<other>": value}, tmp_path / "x.safetensors")
    assert alone.read(tmp_path / "x.safetensors") == [] and torch.equal(alone.params["emb_params"], value)
    assert alone.read(tmp_path / "x.pt") == [] and not torch.equal(alone.params["emb_params"], value)
    save_file({"emb_params": torch.ones(3, 64)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"emb_params is \(3, 64\), but .* make it \(2, 64\)"):
        alone.read(tmp_path / "x.safetensors")
    save_file({"clip_l": value, "clip_g": value + 1}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=r"has no emb_params \(but clip_g, clip_l\)"):
        alone.read(tmp_path / "x.safetensors")


def test_files_are_named_by_the_word_and_the_network_beside_it_by_what_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run")
    endings = [file_name("<mo:chi>") + ".pt", LORA_FILE + ".safetensors"]
    assert [folder.weights_path(7, "", ending).name for ending in endings] == [
        "mochi_000000007.pt",
        "run_LoRA_000000007.safetensors",
    ]
    assert folder.weights_path(None, LORA_FILE).name == "run_LoRA.safetensors"
    for step in (7, 8):
        torch.save({}, folder.weights_path(step, "", endings[0]))
        save_file({"x": torch.ones(1)}, folder.weights_path(step, "", endings[1]))
    folder.weights_path(8, "", endings[0]).write_bytes(b"PK cut off")
    told: list[str] = []
    step, paths = folder.newest_weights(endings, told.append) or (0, ())
    assert step == 7 and [path.name for path in paths] == ["mochi_000000007.pt", "run_LoRA_000000007.safetensors"]
    assert "mochi_000000008.pt is incomplete" in told[0]


def test_models_whose_text_encoders_take_no_words_are_refused() -> None:
    from toolkit.config.sections.train import TrainSection

    unet = Trainable("unet", "", "unet.")
    facts = Facts(4, 8, 16, "x", trainables=(unet,))
    with pytest.raises(ValueError, match="embedding: this model's text encoders cannot be taught words"):
        choose_trained(facts, TrainSection(), "words alone")
    able = Facts(4, 8, 16, "x", trainables=(unet,), vocabularies=(CLIP,))
    assert choose_trained(able, TrainSection(), "words alone") == ()
    assert [one.file for one in choose_trained(able, TrainSection(), "words")] == [LORA_FILE]
    assert choose_trained(able, TrainSection()) == (unet,)
