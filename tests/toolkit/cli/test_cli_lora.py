"""`aitk lora`: looking into a file and converting it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from toolkit.cli.app import run_command_line
from toolkit.networks.keys.summary import count_text_layers

ROOT = Path(__file__).resolve().parents[3]
DOUBLE = "transformer.transformer_blocks.{}.attn.{}"
HEADER = {
    "software": '{"name": "aitk"}',
    "ss_base_model_version": "flux.1",
    "base_model": "a/b",
    "sshs_legacy_hash": "old",
}


@pytest.fixture
def flux_lora(tmp_path: Path) -> Path:
    """Rank 4 on the attention of two double blocks of FLUX.1, in bf16."""
    layers = [DOUBLE.format(block, part) for block in (0, 1) for part in ("to_q", "to_k", "to_v", "to_out.0")]
    tensors = {f"{layer}.lora_A.weight": torch.randn(4, 16).bfloat16() for layer in layers}
    tensors |= {f"{layer}.lora_B.weight": torch.randn(16, 4).bfloat16() for layer in layers}
    save_file(tensors, tmp_path / "mine.safetensors", HEADER)
    return tmp_path / "mine.safetensors"


def aitk(*arguments: str | Path) -> int:
    return run_command_line([str(argument) for argument in arguments])


def test_inspect_shows_what_a_file_is(flux_lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("lora", "inspect", flux_lora) == 0
    text = capsys.readouterr().out
    for line in (
        "network    lora: 8 layers, 16 tensors",
        "rank       4 (8 layers)",
        "alpha      not in the file, which means: equal to rank",
        "dtype      BF16 (16 tensors)",
        "base model a/b",
        "key format diffusers",
        "  transformer_blocks: 8 layers in 2",
        '    "name": "aitk"',
        "  ss_base_model_version: flux.1",
    ):
        assert f"\n{line}\n" in f"{text}\n", line
    assert "flux" in text.split("family")[1].splitlines()[0]
    assert "(by the file's header)" in text


def test_inspect_gives_the_same_as_json(flux_lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("lora", "inspect", "--json", flux_lora) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["network"] == "lora" and facts["ranks"] == {"4": 8} and facts["alphas"] == []
    assert facts["blocks"] == {"transformer_blocks": {"blocks": 2, "layers": 8}}
    assert facts["header"]["software"] == {"name": "aitk"}
    assert facts["bytes"] == flux_lora.stat().st_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_inspect_reads_alphas_and_other_networks(
    tmp_path: Path, dtype: torch.dtype, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = "lora_unet_input_blocks_4_1_proj_in"
    tensors = {f"{stem}.lokr_w1": torch.ones(2, 2), f"{stem}.lokr_w2_a": torch.ones(8, 3)}
    tensors |= {f"{stem}.lokr_w2_b": torch.ones(3, 8), f"{stem}.alpha": torch.tensor(1.5), "strange": torch.ones(1)}
    file = tmp_path / "x.safetensors"
    save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, file)
    assert aitk("lora", "inspect", "--json", file) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["network"], facts["alphas"], facts["ranks"]) == ("lokr", [1.5], {"3": 1})
    assert facts["key_format"] == "kohya"
    assert facts["unknown_keys"] == ["strange"]
    assert "sdxl" in facts["families"]


def test_inspect_imports_no_torch(flux_lora: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import run; run.start(['lora', 'inspect', {str(flux_lora)!r}])"
    )
    code += "; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    assert "8 layers" in result.stdout


NO_OFFSETS = b'{"a.alpha":{"dtype":"F32","shape":[]}}'
NO_DTYPE = b'{"a.alpha":{"shape":[],"data_offsets":[0,4]}}'
ODD_HEADER = b'{"__metadata__":["x"]}'


@pytest.mark.parametrize(
    "content",
    [b"", b"no", b"\x02\0\0\0\0\0\0\0{}"[:-1], b"\x05\0\0\0\0\0\0\0[1,2]"]
    + [len(text).to_bytes(8, "little") + text for text in (NO_OFFSETS, NO_DTYPE, ODD_HEADER)],
)
@pytest.mark.parametrize("command", [("inspect",), ("convert", "--to", "kohya")])
def test_a_file_that_is_none_is_an_error_in_one_line(
    tmp_path: Path, content: bytes, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    assert aitk("lora", *command, tmp_path / "bad.safetensors") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'bad.safetensors'} is not a readable safetensors file: ")
    assert len(line.split("safetensors file: ")[1].split()) > 2 and "buffer" not in line
    assert aitk("lora", *command, tmp_path / "none.safetensors") == 2
    assert "none.safetensors: No such file" in capsys.readouterr().err


def test_convert_there_and_back_keeps_weights_and_header(flux_lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kohya = flux_lora.with_name("mine_kohya.safetensors")
    assert aitk("lora", "convert", flux_lora, "--to", "kohya") == 0
    assert f"wrote {kohya}: 8 layers" in capsys.readouterr().out
    assert "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight" in load_file(kohya)
    with safe_open(kohya, "pt") as file:
        header = file.metadata()
    assert {key: header[key] for key in HEADER if "sshs" not in key} == {
        key: value for key, value in HEADER.items() if "sshs" not in key
    }
    assert header["key_format"] == "kohya" and header.get("sshs_legacy_hash") != "old"
    back = flux_lora.with_name("back.safetensors")
    assert aitk("lora", "convert", kohya, "--to", "diffusers", "-o", back) == 0
    first, second = load_file(flux_lora), load_file(back)
    assert set(first) == set(second)
    assert all(torch.equal(first[key], second[key]) and second[key].dtype == torch.bfloat16 for key in first)


def test_convert_writes_no_numbers_that_are_none_and_8_bits_as_16(
    flux_lora: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, few, out = (flux_lora.with_name(f"{name}.safetensors") for name in ("bad", "few", "out"))
    arguments = ("--to", "diffusers", "--arch", "flux", "-o", out)
    save_file({}, bad)
    assert aitk("lora", "convert", bad, *arguments) == 2
    assert f"{bad}: no layer of a network is in it" in capsys.readouterr().err
    save_file({**load_file(flux_lora), f"{DOUBLE.format(0, 'to_q')}.alpha": torch.tensor(float("nan"))}, bad)
    assert aitk("lora", "convert", bad, *arguments) == 2
    assert "holds NaN or infinite numbers" in capsys.readouterr().err and not out.exists()
    tensors = {key: tensor.to(torch.float8_e4m3fn) for key, tensor in load_file(flux_lora).items()}
    save_file(tensors, few)
    assert aitk("lora", "convert", few, *arguments) == 0
    found = load_file(out)
    assert all(found[key].dtype == torch.float16 and torch.equal(found[key], tensors[key].half()) for key in tensors)


def test_of_a_file_for_two_experts_one_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer, both = "blocks.0.self_attn.q", tmp_path / "both.safetensors"
    keys = {f"diffusion_model.transformer_{n}.{layer}.lora_{side}.weight": n for n in (1, 2) for side in "AB"}
    save_file({key: torch.full((2, 2), float(n)) for key, n in keys.items()}, both)
    assert aitk("lora", "inspect", both) == 0
    assert "wan22_14b" in capsys.readouterr().out
    convert = ("convert", both, "--to", "diffusers", "--arch", "wan22_14b", "--force")
    assert aitk("lora", *convert) == 2
    assert f"{both}: it holds two experts" in capsys.readouterr().err
    for n, part in ((1, "transformer"), (2, "transformer_2")):
        assert aitk("lora", *convert, "--part", part) == 0
        found = load_file(tmp_path / "both_diffusers.safetensors")
        assert {key: tensor.unique().item() for key, tensor in found.items()} == {
            f"transformer.blocks.0.attn1.to_q.lora_{side}.weight": n for side in "AB"
        }


def test_convert_multiplies_alpha_in_and_keeps_text_encoders(tmp_path: Path) -> None:
    stems = ["lora_unet_input_blocks_4_1_proj_in", "lora_te2_text_model_encoder_layers_3_mlp_fc1"]
    tensors = {f"{stem}.lora_down.weight": torch.full((2, 4), 3.0) for stem in stems}
    tensors |= {f"{stem}.lora_up.weight": torch.full((4, 2), 5.0) for stem in stems}
    tensors |= {f"{stem}.alpha": torch.tensor(0.5) for stem in stems} | {"lora_te3_x.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "x.safetensors")
    assert aitk("lora", "convert", tmp_path / "x.safetensors", "--to", "diffusers", "--arch", "sdxl") == 0
    found = load_file(tmp_path / "x_diffusers.safetensors")
    names = ["unet.down_blocks.1.attentions.0.proj_in", "text_encoder_2.text_model.encoder.layers.3.mlp.fc1"]
    assert set(found) == {f"{name}.lora_{side}.weight" for name in names for side in "AB"} | {"lora_te3_x.alpha"}
    for name in names:
        product = found[f"{name}.lora_B.weight"] @ found[f"{name}.lora_A.weight"]
        torch.testing.assert_close(product, torch.full((4, 4), 3.0 * 5 * 2 * 0.25))


def test_convert_never_overwrites_unless_told(flux_lora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = flux_lora.with_name("there.safetensors")
    target.write_text("precious")
    assert aitk("lora", "convert", flux_lora, "--to", "comfyui", "-o", target) == 2
    assert f"{target} exists and was not changed; name another file with -o, or add --force" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert aitk("lora", "convert", flux_lora, "--to", "comfyui", "-o", target, "--force") == 0
    assert "diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight" in load_file(target)


def test_convert_says_what_it_needs_to_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"lora_unet_mystery_0.lora_down.weight": torch.ones(1, 1)}, file)
    for arguments, message in (
        (("--to", "a1111"), "--to: there is no key format 'a1111'; known: diffusers, kohya, comfyui, original"),
        (
            ("--to", "kohya"),
            "the model family is not told: it names no base model and its layers fit none; say it with",
        ),
        (("--to", "kohya", "--arch", "fluks"), "--arch: there is no arch 'fluks'; did you mean 'flux'?"),
        (("--to", "kohya", "--arch", "flux"), "1 of 1 keys name no layer of this network, e.g. lora_unet_mystery_0"),
    ):
        assert aitk("lora", "convert", file, *arguments) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("command", "option"), [("inspect", "--json"), ("convert", "--arch")])
def test_both_commands_explain_themselves(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert aitk("lora", "--help") == 0
    assert f"\n  {command} " in capsys.readouterr().out
    assert aitk("lora", command, "--help") == 0
    assert option in capsys.readouterr().out


def test_a_file_without_a_network_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"decoder.conv.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    assert aitk("lora", "inspect", tmp_path / "model.safetensors") == 2
    assert "no layer of a network is in it" in capsys.readouterr().err


def test_convert_writes_into_a_folder(flux_lora: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert aitk("lora", "convert", flux_lora, "--to", "kohya", "--arch", "flux", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "mine_kohya.safetensors").is_file()


def test_layers_of_text_encoders_are_counted(tmp_path: Path) -> None:
    names = ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "lora_unet_mid_block_attentions_0_proj_in")
    tensors = {f"{name}.lora_{half}.weight": torch.zeros(2, 2) for name in names for half in ("down", "up")}
    save_file(tensors, tmp_path / "both.safetensors")
    assert count_text_layers(tmp_path / "both.safetensors") == 1
