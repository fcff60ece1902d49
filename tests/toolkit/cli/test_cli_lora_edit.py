"""`aitk lora merge`, `resize`, `rescale`, `dtype`, `metadata`, `verify`: options become jobs; exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from toolkit.cli.app import run_command_line
from toolkit.cli.lora_edit import weighted
from toolkit.networks.files import write_weights

STEM = "transformer.transformer_blocks.0.attn.to_q"


def aitk(*arguments: str | Path) -> int:
    return run_command_line(["lora", *map(str, arguments)])


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    rng = torch.Generator().manual_seed(0)
    tensors = {
        f"{STEM}.lora_A.weight": torch.randn(4, 32, generator=rng),
        f"{STEM}.lora_B.weight": torch.randn(32, 4, generator=rng),
    }
    write_weights(tmp_path / "a.safetensors", tensors, torch.float32, {"ss_base_model_version": "flux.1"})
    return tmp_path / "a.safetensors"


def update(path: Path) -> torch.Tensor:
    tensors = load_file(path)
    return tensors[f"{STEM}.lora_B.weight"].float() @ tensors[f"{STEM}.lora_A.weight"].float()


def test_each_command_writes_what_its_process_does(lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert aitk("merge", f"{lora}:0.5", f"{lora}:-1", "-o", out) == 0
    torch.testing.assert_close(update(out), -0.5 * update(lora), atol=1e-5, rtol=1e-5)
    assert aitk("rescale", lora, "--by", "3", "-o", out) == 2, "an existing file is kept"
    torch.testing.assert_close(update(out), -0.5 * update(lora), atol=1e-5, rtol=1e-5)
    assert aitk("rescale", lora, "--by", "3", "--dtype", "fp32", "-o", out, "--force") == 0
    torch.testing.assert_close(update(out), 3 * update(lora), atol=1e-4, rtol=1e-4)
    assert aitk("resize", lora, "--rank", "2", "-o", out, "--force") == 0
    assert load_file(out)[f"{STEM}.lora_A.weight"].shape == (2, 32)
    assert aitk("merge", lora, "--rank", "1", "-o", out, "--force", "--to", "kohya") == 0
    assert load_file(out)["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"].shape == (1, 32)
    assert aitk("dtype", lora, "bf16", "-o", out, "--force") == 0
    assert load_file(out)[f"{STEM}.lora_A.weight"].dtype == torch.bfloat16
    assert aitk("metadata", lora, "--set", "title=a=b", "--remove", "ss_*", "-o", out, "--force") == 0
    assert aitk("verify", lora, out) == 0


def test_into_writes_a_model_and_verify_compares_with_one(
    lora: Path, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert aitk("merge", lora, "--into", tiny_flux, "-o", out, "--part-only") == 0
    assert [path.name for path in sorted(out.iterdir())] == ["aitk_merged.json", "transformer"]
    assert aitk("verify", lora, "--model", tiny_flux) == 0
    capsys.readouterr()
    assert aitk("verify", lora, "--model", "builtin:tiny-flux", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert "does not fit the model's weight" in found["problems"][0]


def test_the_model_tells_the_family_where_the_file_does_not(
    lora: Path, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untold = tmp_path / "untold.safetensors"
    write_weights(untold, load_file(lora), torch.float32, {})
    assert aitk("merge", untold, "-o", tmp_path / "out.safetensors") == 2
    assert "loras.0.path: " in (told := capsys.readouterr().err) and "its layers fit several families" in told
    assert aitk("merge", untold, "-o", tmp_path / "out.safetensors", "--arch", "fluks") == 2
    assert "--arch: " in (told := capsys.readouterr().err) and "did you mean 'flux'" in told
    assert aitk("merge", untold, "--into", tiny_flux, "-o", tmp_path / "model", "--part-only") == 0
    assert aitk("verify", untold, "--model", tiny_flux) == 0


def test_a_wrong_file_is_a_mistake_of_the_user_whenever_it_is_found(
    lora: Path, tiny_flux: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, nan, big = (tmp_path / f"{name}.safetensors" for name in ("cut", "nan", "big"))
    cut.write_bytes(b"not tensors")
    tensors = load_file(lora)
    header = {"ss_base_model_version": "flux.1"}
    write_weights(nan, {name: tensor / 0 for name, tensor in tensors.items()}, torch.float32, header)
    write_weights(big, {name: tensor.repeat(2, 2) for name, tensor in tensors.items()}, torch.float32, header)
    into = ("--into", tiny_flux, "-o", tmp_path / "model")
    for arguments, message in (
        (("merge", lora, cut, "-o", tmp_path / "out.safetensors"), "is not a readable safetensors file"),
        (("rescale", cut, "--by", "2", "-o", tmp_path / "out.safetensors"), "is not a readable safetensors file"),
        (("merge", lora, nan, "-o", tmp_path / "out.safetensors"), "loras.1.path: "),
        (("merge", nan, *into), "loras.0.path: "),
        (("merge", lora, big, *into), "loras.1.path: "),
        (("merge", lora, "--into", tmp_path, "-o", tmp_path / "model"), "is no model"),
    ):
        assert aitk(*arguments) == 2, arguments
        assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists() and not (tmp_path / "out.safetensors").exists()


def test_wrong_options_are_told(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    assert aitk("merge", lora, "-o", out, "--part-only") == 2
    assert aitk("merge", lora, "--into", "x", "--rank", "3", "-o", tmp_path) == 2
    assert aitk("metadata", lora, "--set", "x", "-o", out) == 2
    assert aitk("resize", lora, "-o", out) == 2
    assert "say `rank`" in capsys.readouterr().err
    assert aitk("resize", tmp_path / "no.safetensors", "--rank", "2", "-o", out) == 2
    assert aitk("verify", tmp_path / "no.safetensors") == 2
    assert aitk("merge", lora, "-o", out, "--dry-run") == 0 and not out.exists()


def test_a_weight_follows_the_last_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert weighted("a.safetensors:0.8") == {"path": "a.safetensors", "weight": 0.8}
    assert weighted("a.safetensors:-.5")["weight"] == -0.5
    assert weighted(r"C:\a.safetensors") == {"path": r"C:\a.safetensors"}
    Path("odd:1").touch()
    assert weighted("odd:1") == {"path": "odd:1"}
