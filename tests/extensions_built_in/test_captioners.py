"""Captioners that come with aitk, as tiny random models of the real classes: load, describe, batch, quantize, draw."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from extensions_built_in.captioners import config as plugins
from toolkit.captioning.captioner import Subject
from toolkit.context import Context

MODELS = {
    "blip": (plugins.Blip, "blip", {}, ("a red", "a photo of a cat")),
    "blip2": (plugins.Blip2, "blip2", {}, ("", "a photo of")),
    "blip2_t5": (plugins.Blip2, "blip2", {"kind": "t5"}, ("", "a photo of")),
    "florence2": (plugins.Florence2, "florence", {}, ("<CAPTION>", "<MORE_DETAILED_CAPTION>")),
    "qwen2_5_vl": (plugins.QwenVl, "qwen", {"kind": "qwen2_5_vl"}, ("what?", "two dogs, detailed")),
    "qwen3_vl": (plugins.QwenVl, "qwen", {"kind": "qwen3_vl"}, ("what?", "two dogs, detailed")),
    "llava": (plugins.Llava, "llava", {}, ("?", "two dogs, detailed")),
    "vit": (plugins.WdTagger, "tagger", {"kind": "vit"}, ("", "")),
    "swinv2": (plugins.WdTagger, "tagger", {"kind": "swinv2"}, ("", "")),
}
WRITERS = [name for name, (plugin, *_) in MODELS.items() if plugin is not plugins.WdTagger]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny model, saved when it is first asked for."""
    root = tmp_path_factory.mktemp("captioners")

    def get(name: str) -> Path:
        from extensions_built_in.captioners import tiny

        _, kind, options, _ = MODELS[name]
        return root / name if (root / name).exists() else getattr(tiny, f"save_{kind}")(root / name, **options)

    return get


@pytest.fixture
def load(folder_of: Callable[[str], Path], cpu: Context) -> Callable[..., Any]:
    """Build a captioner by name; keywords are keys of its section."""

    def build(name: str, **keys: Any) -> Any:
        plugin = MODELS[name][0]
        length = {"max_new_tokens": 6} if name in WRITERS else {}
        given = {"model_name_or_path": str(folder_of(name)), "path_to_caption": "x", **length, **keys}
        return plugin.model_validate(given).build(cpu)

    return build


def noise(width: int, height: int, seed: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), Random(seed).randbytes(3 * width * height))


def subjects_of(name: str) -> list[Subject]:
    short, long = MODELS[name][3]
    return [Subject(noise(64, 32, 1), short, 1), Subject(noise(40, 60, 2), long, 2), Subject(noise(48, 48, 3), long, 3)]


@pytest.mark.parametrize("name", MODELS)
def test_batch_gives_what_each_picture_gives_alone(name: str, load: Callable[..., Any]) -> None:
    captioner, subjects = load(name), subjects_of(name)
    texts = captioner.describe(subjects)
    assert texts == [captioner.describe([subject])[0] for subject in subjects]
    assert all(isinstance(text, str) and text for text in texts)


@pytest.mark.parametrize("name", MODELS)
def test_picture_decides(name: str, load: Callable[..., Any]) -> None:
    """The same question about two pictures gets two answers."""
    captioner, second = load(name), subjects_of(name)[1]
    red, black = (replace(second, image=Image.new("RGB", (48, 48), color)) for color in ("red", "black"))
    assert differ(first_scores(captioner, red), first_scores(captioner, black))
    assert not differ(first_scores(captioner, red), first_scores(captioner, red))


@pytest.mark.parametrize("name", WRITERS)
def test_prompt_decides(name: str, load: Callable[..., Any]) -> None:
    captioner, (first, second, _) = load(name), subjects_of(name)
    assert differ(*(first_scores(captioner, replace(asked, image=noise(48, 48, 0))) for asked in (first, second)))


def first_scores(captioner: Any, subject: Subject) -> Any:
    """What a model thinks of each token at the start of its answer, of a tagger of each tag; a random model's likeliest
    one is often the same for all pictures."""
    model, seen = captioner.model, []
    head = model if hasattr(model, "classifier") else getattr(model, "text_decoder", model).get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, output: seen.append(getattr(output, "logits", output)))
    captioner.describe([subject])
    hook.remove()
    return seen[0].flatten(0, -2)[-1]


def differ(left: Any, right: Any) -> bool:
    return float((left - right).abs().max()) > 1e-3 * float(left.abs().max())


@pytest.mark.parametrize("name", MODELS)
def test_quantized_model_runs(name: str, load: Callable[..., Any]) -> None:
    from toolkit.models.quantize import is_quantized

    captioner = load(name, quantize=True, qtype="qint8")
    stored = [path for path, part in captioner.model.named_modules() if is_quantized(part)]
    assert stored and not [path for path in stored if "lm_head" in path or "classifier" in path]
    assert all(captioner.describe(subjects_of(name)))


@pytest.mark.parametrize("name", ["blip", "blip2", "florence2", "qwen3_vl"])
def test_lengths(name: str, load: Callable[..., Any]) -> None:
    """Least and most are counted in tokens that come after the prompt."""
    captioner = load(name)
    written = watch(captioner)
    for length in (3, 5, 9):
        captioner.writing = replace(captioner.writing, max_new_tokens=length, min_new_tokens=length)
        captioner.describe(subjects_of(name)[1:2])
    assert [written[1] - written[0], written[2] - written[1]] == [2, 4]


def test_more_words_can_be_asked_for(load: Callable[..., Any]) -> None:
    captioner, subjects = load("blip", max_new_tokens=30), subjects_of("blip")[1:2]
    # a model that would rather say nothing
    captioner.model.text_decoder.get_output_embeddings().bias[3] = 1e3
    written = watch(captioner)
    for least in (1, 10):
        captioner.describe(subjects, least)
    # [DEC], the prompt of five tokens, and [SEP] at the end
    assert written == [1 + 5 + 1, 1 + 5 + 20 + 1]


def watch(captioner: Any) -> list[int]:
    """Gets the number of tokens of each call of `generate`."""
    written: list[int] = []
    generate = captioner.model.generate

    def watched(**inputs: Any) -> Any:
        ids = generate(**inputs)
        written.append(ids.shape[1])
        return ids

    captioner.model.generate = watched
    return written


@pytest.mark.parametrize("name", ["blip", "qwen3_vl"])
def test_drawn_captions_belong_to_the_picture(name: str, load: Callable[..., Any]) -> None:
    captioner, subjects = load(name, temperature=2.0, seed=7), subjects_of(name)
    texts = captioner.describe(subjects)
    assert texts == [captioner.describe([subject])[0] for subject in subjects]
    assert texts != load(name, temperature=2.0, seed=8).describe(subjects)
    assert texts != load(name).describe(subjects)
    # a vanishing temperature leaves the likeliest token
    assert load(name, temperature=1e-4).describe(subjects) == load(name).describe(subjects)


def test_draws_follow_the_probabilities() -> None:
    import torch

    from toolkit.captioning.writing import Draw

    chances = torch.tensor([0.5, 0.3, 0.2])
    draw = Draw([3] * 1)
    drawn = torch.stack([draw(torch.empty(1, 0), chances.log()[None]).argmax(-1) for _ in range(4000)])
    assert torch.allclose(torch.bincount(drawn[:, 0], minlength=3) / 4000, chances, atol=0.03)


def test_beams_run(load: Callable[..., Any]) -> None:
    assert all(load("blip", num_beams=2).describe(subjects_of("blip")))


def test_qwen_leaves_thoughts_out_and_lays_out_the_chat(load: Callable[..., Any], monkeypatch: Any) -> None:
    captioner = load("qwen3_vl", thinking=True)
    row = captioner._row("two dogs", 6)
    text = captioner.tokenizer.decode(row)
    pads = "<|image_pad|>" * 6
    assert text == f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>two dogs<|im_end|>\n<|im_start|>assistant\n"
    monkeypatch.setattr(captioner.tokenizer, "batch_decode", lambda *_, **__: ["<think>a dog?</think>a cat"])
    assert captioner.describe(subjects_of("qwen3_vl")[:1]) == ["a cat"]


def test_qwen_without_a_template_talks_as_qwen_does(load: Callable[..., Any]) -> None:
    captioner = load("qwen3_vl")
    expected = captioner._row("two dogs", 6)
    captioner.tokenizer.chat_template = None
    with_template, without = (
        captioner.tokenizer.decode(expected),
        captioner.tokenizer.decode(captioner._row("two dogs", 6)),
    )
    assert with_template.replace("<think>\n\n</think>\n\n", "") == without


def test_wrong_kind_of_model_is_named(folder_of: Callable[[str], Path], cpu: Context) -> None:
    section = plugins.Blip(model_name_or_path=str(folder_of("vit")), path_to_caption="x")
    with pytest.raises(ValueError, match="is a 'vit' of transformers; blip takes blip"):
        section.build(cpu)


def test_model_that_is_not_here_says_what_to_do(cpu: Context) -> None:
    section = plugins.Blip(model_name_or_path="owner/model", path_to_caption="x")
    with pytest.raises(ValueError, match=r"owner/model: config\.json is not in the cache.*hf download owner/model"):
        section.build(cpu)


def test_folder_without_weights_says_what_to_do(folder_of: Callable[[str], Path], tmp_path: Path, cpu: Context) -> None:
    for file in folder_of("blip").glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    section = plugins.Blip(model_name_or_path=str(tmp_path), path_to_caption="x")
    with pytest.raises(ValueError, match=r"cannot be loaded.*name a folder that has all files"):
        section.build(cpu)


def test_florence_with_its_own_code_is_refused(tmp_path: Path, cpu: Context) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "florence2", "auto_map": {}}))
    section = plugins.Florence2(model_name_or_path=str(tmp_path), path_to_caption="x")
    with pytest.raises(ValueError, match="florence-community"):
        section.build(cpu)


class TestTagger:
    """What the tagger makes of probabilities and pictures."""

    NAMES = ("general", "sensitive", "1girl", "long_hair", "^_^", "hatsune_miku", "rin_(a)")
    CATEGORIES = (9, 9, 0, 0, 0, 4, 4)
    CHANCES = (0.2, 0.7, 0.5, 0.9, 0.36, 0.86, 0.84)

    def text(self, **keys: Any) -> str:
        from extensions_built_in.captioners.wd_tagger import Choosing

        choice = Choosing(0.35, 0.85, False, True, frozenset(), None, ", ")
        return replace(choice, **keys).text(self.NAMES, self.CATEGORIES, self.CHANCES)

    def test_thresholds_order_and_underscores(self) -> None:
        assert self.text() == "hatsune miku, long hair, 1girl, ^_^"
        assert self.text(character=0.8) == "hatsune miku, rin (a), long hair, 1girl, ^_^"
        assert self.text(general=0.6, replace_underscores=False) == "hatsune_miku, long_hair"
        assert self.text(rating=True, general=0.9) == "sensitive, hatsune miku, long hair"
        assert self.text(max_tags=1, separator=" ") == "long hair"
        assert self.text(exclude=frozenset({"long hair", "1girl"})) == "hatsune miku, ^_^"

    def test_picture_is_put_on_a_white_square(self, load: Callable[..., Any]) -> None:
        pixels = load("vit").look.pixels([Image.new("RGB", (8, 4), (255, 0, 0))])
        assert pixels.shape == (1, 3, 32, 32)
        assert pixels[0, :, 0, 0].tolist() == [1, 1, 1]
        assert pixels[0, :, 16, 16].tolist() == pytest.approx([1, -1, -1])

    def test_colors_may_be_the_other_way_round(self, load: Callable[..., Any]) -> None:
        pixels = load("vit", channel_order="bgr").look.pixels([Image.new("RGB", (8, 8), (255, 0, 0))])
        assert pixels[0, :, 16, 16].tolist() == pytest.approx([-1, -1, 1])

    def test_checkpoint_of_timm_asks_for_timm(self, tmp_path: Path, cpu: Context, monkeypatch: Any) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_base", "pretrained_cfg": {}}))
        section = plugins.WdTagger(model_name_or_path=str(tmp_path), path_to_caption="x")
        with pytest.raises(ValueError, match="pip install timm"):
            section.build(cpu)

    def test_table_has_to_fit(self, folder_of: Callable[[str], Path], tmp_path: Path, cpu: Context) -> None:
        from extensions_built_in.captioners.tiny import write_tags

        for file in folder_of("vit").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        write_tags(tmp_path / "selected_tags.csv", [("a", 0)])
        section = plugins.WdTagger(model_name_or_path=str(tmp_path), path_to_caption="x")
        with pytest.raises(ValueError, match=r"7 outputs, but selected_tags\.csv names 1 tags"):
            section.build(cpu)
