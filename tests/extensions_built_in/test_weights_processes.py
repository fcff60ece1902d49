"""The processes of the jobs `merge` and `mod`, from configs to files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from jobs import get_job, run_job
from toolkit.config import ConfigError
from toolkit.config.preflight import preflight
from toolkit.networks.files import write_weights
from toolkit.weights.stored import StoredTensors
from toolkit.weights.verify import examine

ROOT = Path(__file__).resolve().parents[2]
KOHYA = "lora_unet_double_blocks_0_img_attn_proj"
DIFFUSERS = "transformer.transformer_blocks.0.attn.to_out.0"


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """Rank 4 of one layer of FLUX.1, in kohya's format, alpha 2."""
    tensors = {f"{KOHYA}.lora_down.weight": draw(4, 32, seed=1), f"{KOHYA}.lora_up.weight": draw(32, 4, seed=2)}
    header = {"ss_base_model_version": "flux1", "ss_network_dim": "4", "ss_tag_frequency": "{}", "title": "mine"}
    write_weights(tmp_path / "mine.safetensors", tensors | {f"{KOHYA}.alpha": torch.tensor(2.0)}, torch.float16, header)
    return tmp_path / "mine.safetensors"


def config(job: str, meta: dict[str, Any] | None = None, /, **process: Any) -> dict[str, Any]:
    return {"job": job, "config": {"name": "test", "process": [process]}, "meta": meta or {}}


def header_of(path: Path) -> dict[str, str]:
    return StoredTensors([path]).header


def update(path: Path, stem: str = KOHYA) -> Tensor:
    tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
    names = (
        ("lora_down.weight", "lora_up.weight")
        if f"{stem}.lora_up.weight" in tensors
        else ("lora_A.weight", "lora_B.weight")
    )
    down, up = (tensors[f"{stem}.{name}"] for name in names)
    return up @ down * float(tensors.get(f"{stem}.alpha", torch.tensor(float(len(down))))) / len(down)


def test_a_rescale_config_of_ai_toolkit_runs_as_it_is(lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.safetensors"
    run_job(
        config(
            "mod",
            {"name": "[name]", "description": "d", "trigger_words": ["a", "b"], "creator": {"name": "me"}},
            type="rescale_lora",
            input_path=str(lora),
            output_path=str(out),
            replace_meta=True,
            scale_target="up_down",
            save_dtype="fp16",
            current_weight=6.0,
            target_weight=1.0,
            is_xl=False,
            is_v2=False,
        )
    )
    torch.testing.assert_close(update(out), 6 * update(lora), atol=2e-2, rtol=2e-3)
    header = header_of(out)
    assert header["name"] == "test" and json.loads(header["trigger_words"]) == ["a", "b"]
    assert header["ss_base_model_version"] == "flux1" and "ss_tag_frequency" not in header
    assert load_file(out)[f"{KOHYA}.lora_up.weight"].dtype == torch.float16
    assert examine(out).problems == []


def test_the_same_path_twice_replaces_and_another_one_is_kept(lora: Path, tmp_path: Path) -> None:
    before = update(lora)
    keys = {"type": "rescale_lora", "input_path": str(lora), "current_weight": 1, "target_weight": -2}
    run_job(config("mod", output_path=str(lora), save_dtype="fp32", **keys))
    torch.testing.assert_close(update(lora), -0.5 * before)
    assert header_of(lora)["title"] == "mine"
    other = tmp_path / "other.safetensors"
    other.write_text("mine")
    job = get_job(config("mod", output_path=str(other), **keys))
    (problem,) = preflight(job)
    assert "exists and is not replaced" in str(problem)
    with pytest.raises(ValueError, match="exists and is not replaced"):
        job.run()
    assert other.read_text() == "mine"
    run_job(config("mod", output_path=str(other), overwrite=True, **keys))
    assert examine(other).problems == []


def test_loras_of_two_formats_become_one(lora: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second.safetensors"
    tensors = {f"{DIFFUSERS}.lora_A.weight": draw(3, 32, seed=5), f"{DIFFUSERS}.lora_B.weight": draw(32, 3, seed=6)}
    write_weights(second, tensors, torch.float32, {"ss_base_model_version": "flux1", "title": "other"})
    out = tmp_path / "out.safetensors"
    loras: list[Any] = [{"path": str(lora), "weight": 0.5}, str(second)]
    run_job(config("merge", type="merge_loras", loras=loras, output_path=str(out), save_dtype="fp32"))
    exact = 0.5 * update(lora) + update(second, DIFFUSERS)
    torch.testing.assert_close(update(out), exact, atol=1e-4, rtol=1e-4)
    header = header_of(out)
    assert (header["ss_network_dim"], header["ss_base_model_version"], header["key_format"]) == ("7", "flux1", "kohya")
    assert "title" not in header and examine(out).problems == []
    entries = json.loads(header["merged_from"])
    assert [(one["file"], one["weight"]) for one in entries] == [("mine.safetensors", 0.5), ("second.safetensors", 1.0)]
    assert entries[0]["sshs_model_hash"] == header_of(lora)["sshs_model_hash"]
    report = tmp_path / "report.json"
    cut = tmp_path / "cut.safetensors"
    keys = {"method": "svd", "rank": 2, "key_format": "diffusers", "report": str(report), "save_dtype": "fp32"}
    run_job(config("merge", type="merge_loras", loras=loras, output_path=str(cut), **keys))
    s = torch.linalg.svdvals(exact)
    kept = float(s[:2].square().sum() / s.square().sum())
    assert json.loads(report.read_text())["energy_kept"][DIFFUSERS] == pytest.approx(kept, abs=1e-4)
    assert f"{kept:.2%} {DIFFUSERS}" in capsys.readouterr().out
    lost = float((update(cut, DIFFUSERS) - exact).square().sum() / exact.square().sum())
    assert lost == pytest.approx(1 - kept, abs=1e-4)


def test_a_lora_is_merged_into_the_embedded_model(tmp_path: Path) -> None:
    base = ROOT / "toolkit" / "assets" / "tiny-flux"
    weights = load_file(base / "transformer" / "diffusion_pytorch_model.safetensors")
    name = "transformer_blocks.0.attn.to_q"
    rows, columns = weights[f"{name}.weight"].shape
    tensors = {f"transformer.{name}.lora_A.weight": draw(2, columns, seed=1)}
    tensors |= {f"transformer.{name}.lora_B.weight": draw(rows, 2, seed=2)}
    write_weights(tmp_path / "a.safetensors", tensors, torch.float32, {"ss_base_model_version": "flux.1"})
    out = tmp_path / "merged"
    keys = {"base": "builtin:tiny-flux", "loras": [str(tmp_path / "a.safetensors")], "output_path": str(out)}
    leftover = tmp_path / ".aitk-tmp-0123456789ab-merged"
    leftover.mkdir()
    run_job(config("merge", type="merge_lora_into_model", save_dtype="fp32", **keys))
    found = load_file(out / "transformer" / "diffusion_pytorch_model.safetensors")
    change = tensors[f"transformer.{name}.lora_B.weight"] @ tensors[f"transformer.{name}.lora_A.weight"]
    torch.testing.assert_close(found[f"{name}.weight"], weights[f"{name}.weight"].float() + change)
    assert (out / "tokenizer_2" / "tokenizer.json").is_file() and not leftover.exists()


def test_rank_dtype_and_header_change_and_the_hashes_are_right(lora: Path, tmp_path: Path) -> None:
    keys = {"input_path": str(lora)}
    run_job(config("mod", type="resize_lora", rank=2, output_path=str(tmp_path / "r.safetensors"), **keys))
    assert load_file(tmp_path / "r.safetensors")[f"{KOHYA}.lora_up.weight"].dtype == torch.float16
    assert header_of(tmp_path / "r.safetensors")["ss_network_dim"] == "2"
    run_job(config("mod", type="change_dtype", save_dtype="fp32", output_path=str(tmp_path / "d.safetensors"), **keys))
    torch.testing.assert_close(update(tmp_path / "d.safetensors"), update(lora))
    assert load_file(tmp_path / "d.safetensors")[f"{KOHYA}.lora_up.weight"].dtype == torch.float32
    out = tmp_path / "m.safetensors"
    edit = {"remove": ["ss_tag*"], "set": {"title": "yours", "tags": [1]}}
    run_job(config("mod", type="edit_metadata", output_path=str(out), **keys, **edit))
    header, before = header_of(out), header_of(lora)
    assert (header["title"], header["tags"], header["ss_network_dim"]) == ("yours", "[1]", "4")
    assert "ss_tag_frequency" not in header
    assert header["sshs_model_hash"] == before["sshs_model_hash"]
    assert header["sshs_legacy_hash"] == before["sshs_legacy_hash"] or len(out.read_bytes()) > 0x100000
    run_job(config("mod", type="edit_metadata", strip=True, output_path=str(out), overwrite=True, **keys))
    assert header_of(out).keys() == {"format", "sshs_model_hash", "sshs_legacy_hash"}
    assert all(not examine(path).problems for path in tmp_path.glob("?.safetensors"))


def test_a_resize_writes_16_bits_for_8_and_no_numbers_that_are_none(lora: Path, tmp_path: Path) -> None:
    few, out = tmp_path / "few.safetensors", tmp_path / "out.safetensors"
    save_file({key: tensor.to(torch.float8_e4m3fn) for key, tensor in load_file(lora).items()}, few)
    keys = {"type": "resize_lora", "rank": 4, "input_path": str(few), "output_path": str(out), "overwrite": True}
    run_job(config("mod", **keys))
    assert load_file(out)[f"{KOHYA}.lora_up.weight"].dtype == torch.float16
    torch.testing.assert_close(update(out), update(few), atol=0.02, rtol=0.01)
    save_file({**load_file(lora), f"{KOHYA}.alpha": torch.tensor(float("nan"))}, few)
    with pytest.raises(ValueError, match=r"^input_path: .*alpha holds NaN"):
        run_job(config("mod", **keys))


def test_alphas_in_the_header_of_diffusers_survive(tmp_path: Path) -> None:
    tensors = {f"{DIFFUSERS}.lora_A.weight": draw(4, 32, seed=1), f"{DIFFUSERS}.lora_B.weight": draw(32, 4, seed=2)}
    entry = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 8, "transformer.r": 4}), "x": "y"}
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(tensors, source, entry)
    run_job(config("mod", type="edit_metadata", strip=True, input_path=str(source), output_path=str(out)))
    assert "lora_adapter_metadata" in header_of(out) and "x" not in header_of(out)
    run_job(
        config("mod", type="resize_lora", rank=4, input_path=str(source), output_path=str(tmp_path / "c.safetensors"))
    )
    assert load_file(tmp_path / "c.safetensors").keys() == tensors.keys()
    assert "lora_adapter_metadata" not in header_of(tmp_path / "c.safetensors")
    torch.testing.assert_close(
        update(tmp_path / "c.safetensors", DIFFUSERS), 2 * update(source, DIFFUSERS), atol=1e-4, rtol=1e-4
    )


def test_checkpoints_are_streamed(tmp_path: Path) -> None:
    source, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"m.weight": draw(3, 3, seed=1), "ids": torch.arange(3)}, source, {"modelspec.title": "t"})
    run_job(config("mod", type="change_dtype", save_dtype="bf16", input_path=str(source), output_path=str(out)))
    found = load_file(out)
    assert found["m.weight"].dtype == torch.bfloat16 and found["ids"].dtype == torch.int64
    keys = {"input_path": str(out), "output_path": str(out), "set": {"modelspec.title": "u"}}
    run_job(config("mod", type="edit_metadata", **keys))
    assert header_of(out)["modelspec.title"] == "u" and torch.equal(load_file(out)["m.weight"], found["m.weight"])


@pytest.mark.parametrize(
    ("process", "text"),
    [
        ({"type": "merge_loras", "loras": ["a.safetensors"], "method": "svd"}, "needs `rank`"),
        ({"type": "merge_loras", "loras": ["a.safetensors"], "rank": 4}, "set `method: svd`"),
        ({"type": "merge_loras", "loras": [{"path": "a.safetensors", "weight": 0}]}, "all weights are 0"),
        ({"type": "merge_models", "models": ["a.safetensors"] * 2, "method": "add_difference"}, "needs three"),
        ({"type": "merge_models", "models": ["a", "b"]}, "is the name of a folder"),
        ({"type": "merge_lora_into_model", "base": "x/y", "loras": ["a.safetensors"]}, "is the name of a folder"),
        ({"type": "merge_lora_into_model", "base": "a.safetensors", "loras": []}, "loras"),
    ],
)  # fmt: skip
def test_contradictions_of_merges_are_told(process: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        get_job(config("merge", output_path="out.safetensors", **process))


def test_missing_inputs_are_told_before_anything_is_read(tmp_path: Path) -> None:
    job = get_job(
        config(
            "mod",
            type="resize_lora",
            rank=2,
            input_path="./no.safetensors",
            output_path=str(tmp_path / "o.safetensors"),
        )
    )
    assert "there is no file or folder ./no.safetensors" in str(preflight(job)[0])
    with pytest.raises(ConfigError, match="say `rank`"):
        get_job(config("mod", type="resize_lora", input_path="a.safetensors", output_path="b.safetensors"))
    with pytest.raises(ConfigError, match="must not be 0"):
        keys = {"current_weight": 1, "target_weight": 0, "output_path": "b.safetensors"}
        get_job(config("mod", type="rescale_lora", input_path="a.safetensors", **keys))


def test_examples_pass_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    examples = sorted(
        path for kind in ("merge", "mod") for path in (ROOT / "config" / "examples").glob(f"{kind}_*.yaml")
    )
    assert len(examples) == 7
    for example in examples:
        job = get_job(example)
        # the files are the user's, or what the quick start leaves; whoever ran the example has its output
        unexpected = [str(p) for p in preflight(job) if not re.search(r"there is no file|is not replaced", str(p))]
        assert not job.notices and not unexpected and job.plan()
        assert f"#   aitk run config/examples/{example.name}" in example.read_text(encoding="utf-8")
