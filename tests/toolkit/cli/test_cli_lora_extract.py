"""`aitk lora extract`: options become a job of kind `extract`, files are not replaced, mistakes are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.cli.app import run_command_line


def run(*words: str | Path) -> int:
    return run_command_line(["lora", "extract", *map(str, words)])


def test_a_file_is_written_and_not_replaced(
    tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    model = FluxTransformer2DModel.from_pretrained(tiny_flux / "transformer")
    model.transformer_blocks[0].attn.to_q.weight.data += 0.1
    model.save_pretrained(tmp_path / "tuned/transformer")
    options = (tiny_flux, tmp_path / "tuned", "-o", tmp_path / "out.safetensors", "--device", "cpu", "--json")
    assert run(*options, "--rank", "2", "--key-format", "kohya", "--dtype", "bf16") == 0
    tensors = load_file(tmp_path / "out.safetensors")
    (down,) = [tensor for name, tensor in tensors.items() if name.endswith("lora_down.weight")]
    assert (str(down.dtype), {name.split(".")[0] for name in tensors}) == (
        "torch.bfloat16",
        {"lora_unet_double_blocks_0_img_attn_qkv"},
    )
    told = json.loads((tmp_path / "out.json").read_text())
    assert (told["mode"], told["linear"], len(told["layers"])) == ("fixed", 2, 1)
    capsys.readouterr()
    assert run(*options) == 2
    assert "exists and was not changed" in capsys.readouterr().err
    assert run(*options, "--force", "--ratio", "0.01") == 0
    assert json.loads((tmp_path / "out.json").read_text())["layers"].popitem()[1]["rank"] == 1


def test_the_plan_is_that_of_a_config_file(tiny_flux: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--quantile", "0.9", "--conv", "0.5", "--max-rank", "64", "--all-layers", "--dry-run")
    assert run(tiny_flux, "builtin:tiny-flux", *options) == 0
    plan = capsys.readouterr().out
    assert f"base: {tiny_flux} (flux)" in plan and "fine-tuned: builtin:tiny-flux" in plan
    assert "rank: quantile 0.9, larger convolutions 0.5, at most 64" in plan


def test_mistakes_are_named_by_exit_code_2(tiny_flux: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_flux, "owner/tuned", "--rank", "4", "--ratio", "0.5") == 2
    assert "give one of them" in capsys.readouterr().err
    assert run(tiny_flux, "./missing", "--ratio", "4") == 2
    assert "--ratio: is a share between 0 and 1" in capsys.readouterr().err
    assert run(tiny_flux, "./missing") == 2
    assert "TUNED: there is no file or folder ./missing" in capsys.readouterr().err
