"""The model card: metadata that the Hub reads, a license that somebody stated, code that runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import Hub, hub_of_the_client
from huggingface_hub import ModelCard as HubCard
from huggingface_hub import constants

from toolkit.reporting.licenses import STATED, License, license_of
from toolkit.reporting.model_card import Base, ModelCard, Shown, sealed
from toolkit.reporting.usage import Saved, Usage, python_lines, uploaded

USAGE = Usage("FluxPipeline", "black-forest-labs/FLUX.1-dev", [Saved("m1k4.safetensors")])
CARD = ModelCard(
    title="m1k4: a cat",
    base=Base("black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-dev"),
    network="lora of rank 16",
    files=["m1k4.safetensors"],
    tags=["diffusers", "lora", "flux"],
    pipeline_tag="text-to-image",
    trigger="m1k4",
    usage=USAGE,
    shown=[Shown("samples/1.jpg", 'a "m1k4": #1 cat | dog'), Shown("samples/2.jpg", "Katze mit Hut --- \u732b")],
    facts={"steps": "300", "optimizer": "adamw | 8 bit"},
    limits=["None."],
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_the_client(monkeypatch, tmp_path) as served:
        yield served


def test_the_client_of_the_hub_reads_the_card(hub: Hub) -> None:
    license = license_of(None, "black-forest-labs/FLUX.1-dev", ask=False)
    card = HubCard(sealed(replace(CARD, base=replace(CARD.base, license=license)).text()))
    card.validate()
    data = card.data.to_dict()
    assert data["license"] == "other" and data["license_name"] == "flux-1-dev-non-commercial-license"
    assert data["license_link"] == "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
    assert data["base_model"] == "black-forest-labs/FLUX.1-dev" and data["base_model_relation"] == "adapter"
    assert (data["pipeline_tag"], data["library_name"]) == ("text-to-image", "diffusers")
    assert data["instance_prompt"] == "m1k4" and data["tags"] == ["diffusers", "lora", "flux"]
    assert data["widget"] == [{"text": s.prompt, "output": {"url": s.path}} for s in CARD.shown]
    assert "| optimizer | adamw \\| 8 bit |" in card.text and "A LoRA of rank 16 for [black-forest" in card.text
    assert "Write `m1k4` into the prompt" in card.text and "ComfyUI/models/loras/" in card.text


def test_a_model_from_a_disk_names_no_repository() -> None:
    card = replace(CARD, base=Base("my-model", where="from the disk of whoever trained it"), network=None)
    data = HubCard(card.text()).data.to_dict()
    assert data["license"] == "unknown" and "base_model" not in data and "base_model_relation" not in data
    assert "this card claims none" in card.text() and "A full fine-tune of `my-model` (from the disk" in card.text()


def test_no_license_is_guessed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert license_of(tmp_path, None) == License() == license_of(None, None)
    (tmp_path / "README.md").write_text("# no metadata\n", encoding="utf-8")
    assert license_of(tmp_path, None).id == "unknown"
    (tmp_path / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n", encoding="utf-8")
    assert license_of(tmp_path, None).id == "unknown", "which of the two is for its publisher to say"
    (tmp_path / "README.md").write_text("---\r\nlicense: mit\r\n---\r\n", encoding="utf-8")
    assert license_of(tmp_path, None) == License("mit", source="its model card")

    hub.repositories |= {"bob/base": {}, "fal/AuraFlow": {}, "bob/silent": {"README.md": b"# silent\n"}}
    hub.repositories["bob/base"]["README.md"] = b"---\nlicense: other\nlicense_name: b\nlicense_link: L.md\n---\n"
    assert license_of(None, "bob/base", ask=False).id == "unknown" and not hub.requests
    link = "https://huggingface.co/bob/base/blob/main/L.md"
    assert license_of(None, "bob/base") == License("other", "b", link, "its model card")
    assert license_of(None, "bob/base", ask=False).name == "b", "from the cache"
    assert license_of(None, "bob/silent").id == license_of(None, "bob/none").id == "unknown"
    hub.requests.clear()
    assert license_of(None, "fal/AuraFlow").id == "apache-2.0" and not hub.requests
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert license_of(None, "bob/other").id == "unknown"


def test_named_licenses_have_a_link() -> None:
    for name, (identifier, title, link) in STATED.items():
        assert "/" in name and (identifier == "other") == bool(title) == bool(link)


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (USAGE, 'load_lora_weights("ann/mine", weight_name="m1k4.safetensors")\n'),
        (replace(USAGE, prompt='a "b"\\', options={"width": 64}), 'prompt="a \\"b\\"\\\\",\n    width=64,'),
        (replace(USAGE, base_model="b/c/d.safetensors"), 'FluxPipeline.from_single_file("b/c/d.safetensors", dtype'),
        (replace(USAGE, pictures=["image"]), 'image=load_image("image.png"),\n).images[0]'),
        (replace(USAGE, fps=16), 'frames[0]\nexport_to_video(made, "video.mp4", fps=16)'),
        (replace(USAGE, saved=[Saved("m", "folder")]), 'from_pretrained("ann/mine", subfolder="m/transformer", dtype'),
        (replace(USAGE, saved=[Saved("m.st", "file", "unet")]), 'pipe.unet.load_state_dict(load_file("m.st"))'),
        (
            replace(
                USAGE, saved=[Saved("w.st", "embedding", word="mochi", encoders=(("g", "text_encoder", "tokenizer"),))]
            ),
            'load_file("w.st")\npipe.load_textual_inversion(word["g"], token="mochi", text_encoder=pipe.text_encoder, ',
        ),
        (
            replace(USAGE, saved=[Saved("h.st"), Saved("l.st", part="transformer_2")]),
            'weight_name="h.st")\npipe.load_lora_weights("ann/mine", weight_name="l.st", load_into_transformer_2=True)',
        ),
    ],
)
def test_lines_of_python(usage: Usage, wanted: str) -> None:
    code = uploaded("\n".join(python_lines(usage, ".")), "ann/mine")
    ast.parse(code)
    assert wanted in code and '"."' not in code
