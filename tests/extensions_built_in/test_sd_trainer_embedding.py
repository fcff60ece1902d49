"""Textual inversion by the trainer: files that diffusers reads as users do, resuming, a LoRA beside it, refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jobs import Stopped
from toolkit.config.errors import ConfigError

WORD = {"trigger": "mochi", "tokens": 3, "init_words": "red circle"}
CHECKS = {"validate_every_n_steps": 1, "validation_sigmas": [0.7], "resolution": 32}
TEXTS = ["a mochi on a blue background", "a cat"]


@pytest.fixture
def teaching(training: Callable[..., Any]) -> Callable[..., Any]:
    """Teaches the tiny FLUX a word, and nothing else; keywords change sections."""
    return lambda name="run", **sections: (
        training(name, network=None, embedding=WORD).but(save={"save_every": 2}).but(**sections)
    )


@contextmanager
def encoder_as_trained(run: Any) -> Iterator[Any]:
    """`texts -> rows` with the word of a finished run, by the family that trained it."""
    from jobs import get_job
    from toolkit.context import make_context
    from toolkit.networks.embedding import Embedding

    config = get_job(run.config).processes[0]
    family = config.model.build(make_context("cpu", "fp32", 0), checkpointing=False, bypass_guidance=False)
    with family.parts.using(*family.needs["encode_prompt"]), torch.no_grad():
        embedding = Embedding(family.parts, family.facts.vocabularies, "mochi", 3, "red circle")
        for name, param in run.state()["params"].items():
            embedding.params[name.removeprefix("embedding.")].data.copy_(param)
        yield family.encode_prompt


def assert_same(rows: list[dict[str, Any]], name: str, found: Any) -> None:
    torch.testing.assert_close(torch.stack([row[name] for row in rows]), found)


def test_flux_learns_a_word_that_its_pipeline_reads(teaching: Any, tiny_flux: Path) -> None:
    from diffusers import FluxPipeline
    from safetensors.torch import load_file

    run = teaching().run()
    names = {path.name for path in run.path.glob("*.safetensors")}
    assert names == {"mochi_000000002.safetensors", "mochi.safetensors"}
    half, found = (load_file(run.path / name) for name in sorted(names, reverse=True))
    assert {key: len(tensor) for key, tensor in found.items()} == {"clip_l": 3, "t5xxl": 3}
    assert all((found[key] - half[key]).abs().max() > 1e-4 for key in found)
    pipeline = FluxPipeline.from_pretrained(tiny_flux, transformer=None, vae=None)
    second = {"tokenizer": pipeline.tokenizer_2, "text_encoder": pipeline.text_encoder_2}
    pipeline.load_textual_inversion(found["clip_l"], token="mochi")
    pipeline.load_textual_inversion(found["t5xxl"], token="mochi", **second)
    with torch.no_grad():
        text, pooled, _ = pipeline.encode_prompt(TEXTS, None, max_sequence_length=pipeline.tokenizer_2.model_max_length)
    with encoder_as_trained(run) as encode:
        assert_same(encode(TEXTS), "text", text)
        assert_same(encode(TEXTS), "pooled", pooled)
        assert not torch.equal(*(row["pooled"] for row in encode(["a mochi on a cat", "a cat on a cat"])))


@pytest.mark.parametrize("save_format", ["safetensors", "pt"])
def test_stable_diffusion_learns_a_word_that_its_pipeline_reads(
    teaching: Any, save_format: str, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    from extensions_built_in.stable_diffusion.tiny import save_tiny

    tiny = save_tiny(tmp_path / "sd")
    model = {"arch": "sd15", "name_or_path": str(tiny)}
    run = teaching(model=model, embedding={**WORD, "save_format": save_format}, train={"steps": 2}).run()
    pipeline = StableDiffusionPipeline.from_pretrained(tiny, unet=None, vae=None)
    pipeline.load_textual_inversion(str(run.path / f"mochi.{save_format}"), token="mochi")
    with torch.no_grad(), encoder_as_trained(run) as encode:
        assert_same(encode(TEXTS), "text", pipeline.encode_prompt(TEXTS, "cpu", 1, False)[0])


def test_sdxl_learns_a_word_that_its_pipeline_reads(teaching: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file

    from extensions_built_in.stable_diffusion.tiny import save_tiny_xl

    tiny = save_tiny_xl(tmp_path / "xl")
    run = teaching(model={"arch": "sdxl", "name_or_path": str(tiny)}, train={"steps": 2}).run()
    found = load_file(run.path / "mochi.safetensors")
    assert set(found) == {"clip_l", "clip_g"}
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny, unet=None, vae=None)
    second = {"tokenizer": pipeline.tokenizer_2, "text_encoder": pipeline.text_encoder_2}
    pipeline.load_textual_inversion(found["clip_l"], token="mochi")
    pipeline.load_textual_inversion(found["clip_g"], token="mochi", **second)
    with torch.no_grad(), encoder_as_trained(run) as encode:
        text, _, pooled, _ = pipeline.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
        assert_same(encode(TEXTS), "text", text)
        assert_same(encode(TEXTS), "pooled", pooled)


def test_the_word_is_put_into_captions_and_the_loss_falls(teaching: Any, shapes_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    for ending in ("png", "txt"):
        (folder / f"0.{ending}").write_bytes((shapes_folder / f"0.{ending}").read_bytes())
    caption = (folder / "0.txt").read_text(encoding="utf-8")
    assert "mochi" not in caption
    held_out = {"image_path": str(folder / "0.png"), "prompt": f"[trigger] {caption}"}
    run = teaching(
        datasets=[{"folder_path": str(folder), "resolution": 32}],
        train={"steps": 6, "lr": 1.0, "embedding_lr": 0.3, "batch_size": 1},
    ).but(train={"validation_config": {**CHECKS, "validation_items": [held_out]}})
    losses = [row["validation/loss"] for row in run.run().metrics() if "validation/loss" in row]
    # the validation prompt has the word, so that it falls only if training saw the word too
    assert len(losses) == 6 and losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    rates = {row["learning_rate"] for row in run.metrics() if "learning_rate" in row}
    assert rates == {0.3}


def test_a_stopped_run_ends_like_one_in_one_go(teaching: Any, signal_at: Any, identical: Any) -> None:
    options = {"train": {"ema_config": {"use_ema": True}}}
    whole, parts = teaching("whole", **options).run(), teaching("parts", **options)
    with signal_at("step 2/4"), pytest.raises(Stopped, match="saved at step 2"):
        parts.run()
    assert (parts.path / "mochi_000000002.safetensors").exists() and not (parts.path / "mochi.safetensors").exists()
    parts.run()
    assert identical(parts.state(), whole.state())
    assert (parts.path / "mochi.safetensors").read_bytes()[-512:] == (whole.path / "mochi.safetensors").read_bytes()[
        -512:
    ]


def test_a_lora_beside_it_has_a_file_of_its_own(training: Any, capsys: Any) -> None:
    run = training(embedding=WORD, save={"save_every": 1, "max_step_saves_to_keep": 2}).run()
    files = [f"{name}_{step:09d}.safetensors" for name in ("mochi", "run_LoRA") for step in (2, 3)]
    files += ["mochi.safetensors", "run_LoRA.safetensors"]
    assert {path.name for path in run.path.glob("*.safetensors")} == set(files)
    assert {name.split(".")[0] for name in run.state()["params"]} == {"embedding", "transformer"}
    (run.path / "optimizer.pt").unlink()
    for name in ("mochi", "run_LoRA"):
        (run.path / f"{name}.safetensors").unlink()
    capsys.readouterr()
    run.but(train={"steps": 5}).run()
    told = capsys.readouterr().out
    assert "resumed weights of step 3 from mochi_000000003.safetensors and run_LoRA_000000003.safetensors" in told


@pytest.mark.parametrize(
    ("sections", "where", "text"),
    [
        ({"train": {"cache_text_embeddings": True}}, "train.cache_text_embeddings", "encodes captions at every step"),
        ({"train": {"unload_text_encoder": True}}, "train.unload_text_encoder", "encodes captions at every step"),
        ({"trigger_word": "dango"}, "trigger_word", "must be embedding.trigger, 'mochi'"),
        ({"embedding": {"trigger": "a b"}}, "embedding.trigger", "must be one word"),
        ({"embedding": {"tokens": 0}}, "embedding.tokens", "must be at least 1"),
        ({"embedding": {"trigger_class_name": "cake"}}, "embedding.trigger_class_name", "init_words says"),
        ({"embedding": None, "type": "textual_inversion_trainer"}, "type", "has no embedding section"),
    ],
)
def test_what_does_not_fit_is_refused(teaching: Any, sections: dict[str, Any], where: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        teaching(**sections).run()
    assert where in str(error.value) and text in str(error.value)


def test_the_word_stands_for_trigger_in_prompts_and_samples_follow_it(teaching: Any) -> None:
    from toolkit.sampling.picture_files import list_pictures, read_metadata

    sample = {"width": 32, "height": 32, "sample_steps": 1, "format": "png", "sample_every": 0, "seed": 1}
    prompts = ["[trigger]", "[trigger] --m 0", "a cat"]
    run = teaching(sample={**sample, "prompts": prompts}, train={"embedding_lr": 5.0}).run()
    made = [(file.step, Image.open(file.path).tobytes()) for file in list_pictures(run.path / "samples")]
    before, after = ([pixels for step, pixels in made if step == wanted] for wanted in (0, 4))
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]
    first = next(iter(list_pictures(run.path / "samples")))
    assert read_metadata(first.path)["prompt"] == "mochi"
