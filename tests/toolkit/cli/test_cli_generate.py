"""`aitk generate` as a user types it: pictures of the embedded model, mistakes in the words of the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.assets.recognition import recognize as recognize_shape
from toolkit.cli.app import run_command_line
from toolkit.cli.generate import read_lora
from toolkit.sampling.picture_files import read_metadata

ROOT = Path(__file__).resolve().parents[3]


def test_a_process_of_its_own_makes_what_was_asked_for(tmp_path: Path) -> None:
    """Size and family are found out; the picture shows the prompt, and the same command makes nothing again."""
    command = [sys.executable, "scripts/aitk.py", "generate", "builtin:tiny-flux"]
    command += ["a large red circle on a white background", "--num", "2", "--out", str(tmp_path / "out")]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    assert "2 pictures in" in first.stdout and "contact sheet:" in first.stdout
    one, two = sorted((tmp_path / "out").glob("0*.png"))
    assert (read_metadata(one)["seed"], read_metadata(two)["seed"]) == (42, 43)
    with Image.open(one) as image:
        assert image.size == (64, 64)
        assert "red" in str(recognize_shape(image.convert("RGB")))
    assert run_command_line([*command[2:], "--steps", "28"]) == 0
    assert len(list((tmp_path / "out").glob("0*.png"))) == 2


def test_a_lora_with_weights_side_by_side(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    rng = torch.Generator().manual_seed(0)
    name = "transformer.transformer_blocks.0.attn.to_q.lora_{}.weight"
    shapes = {"A": (4, 128), "B": (128, 4)}
    file = tmp_path / "my.safetensors"
    save_file({name.format(which): torch.randn(size, generator=rng) for which, size in shapes.items()}, file)
    common = ["generate", "builtin:tiny-flux", "a green square on a blue background --s 3", "--out", str(tmp_path)]
    assert run_command_line([*common, "--lora", f"{file}:0.5", "--compare", "0,1,2", "--guidance", "1"]) == 0
    none, half, whole = (np.asarray(Image.open(path)).astype(int) for path in sorted(tmp_path.glob("0*.png")))
    assert np.abs(none - half).max() > 5 and np.abs(half - whole).max() > 5
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        # a label, and three pictures of 192 pixels
        assert sheet.width > 3 * 192 + 200 and sheet.height < 320
    assert run_command_line([*common, "--guidance", "1"]) == 0
    assert len(list(tmp_path.glob("0*.png"))) == 4


def test_a_lora_and_its_weight() -> None:
    assert read_lora("a/b.safetensors:0.8") == {"path": "a/b.safetensors", "weight": 0.8}
    assert read_lora("a/b.safetensors:-1") == {"path": "a/b.safetensors", "weight": -1.0}
    assert read_lora(r"C:\my lora.safetensors") == {"path": r"C:\my lora.safetensors"}
    assert read_lora("owner/repo/file.safetensors") == {"path": "owner/repo/file.safetensors"}


TINY = ["builtin:tiny-flux", "a cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["builtin:tiny-flux"], "PROMPT: missing"),
        (["builtin:nope", "a cat"], "MODEL: there is no embedded model 'builtin:nope'"),
        (
            ["datasets", "a cat"],
            r"MODEL: datasets has no model_index.json, which would say what it is; name its family",
        ),
        ([*TINY, "--arch", "fluks"], "--arch: no arch is named 'fluks'; did you mean 'flux'"),
        ([*TINY, "--arch", "wan21"], "--arch: builtin:tiny-flux is of the family flux, not wan21"),
        ([*TINY, "--out", "/proc/out"], "--out: /proc cannot be written to"),
        ([*TINY, "--lora", "nope.safetensors:0.8"], "--lora: there is no file nope.safetensors"),
        ([*TINY, "--compare", "0,1"], "--compare: compares weights of LoRAs, but there is none"),
        ([*TINY, "--compare", "0,x"], "--compare: must be numbers"),
        ([*TINY, "--size", "big"], "--size: must be WIDTHxHEIGHT such as 512x768, not 'big'"),
        ([*TINY, "--steps", "0"], "--steps: must be at least 1, not 0"),
        (["builtin:tiny-flux", "a cat --w abc"], "PROMPT: prompt 1: --w needs a whole number, got 'abc'"),
        (["builtin:tiny-flux", "--prompts-file", "no.txt"], "--prompts-file: there is no file no.txt"),
        ([*TINY, "--prompts-file", "no.txt"], "do not go together"),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_command(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert run_command_line(["generate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["generate", *TINY, "two dogs", "--num", "3", "--dry-run"]) == 0
    assert "pictures: 6 (2 prompts x 3 repeats)" in capsys.readouterr().out
    assert run_command_line(["generate", *TINY, "a dog --width 9", "--arch", "flux_kontext", "--dry-run"]) == 0
    assert "prompt 2: --width is no flag and stays in the prompt; --w is one" in capsys.readouterr().out
