"""The last lines of a run, and what it ran on."""

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from toolkit.reporting.device_memory import format_bytes, memory_in_use
from toolkit.reporting.summary import format_duration, summary
from toolkit.reporting.usage import Saved, Usage
from toolkit.reporting.versions import commit, installed_version, versions


def test_summary_says_where_and_how() -> None:
    weights = Path("output/my lora/my_lora.safetensors")
    lines = summary(
        [weights],
        step=300,
        seconds=125,
        usage=Usage("FluxPipeline", "black-forest-labs/FLUX.1-dev", [Saved(weights.name)], prompt="a photo of sks"),
        samples_dir=Path("output/my lora/samples"),
        contact_sheet=Path("output/my lora/samples/contact_sheet.png"),
    )
    assert lines[0] == "Done: 300 steps in 2 min 05 s."
    assert f"Weights: {weights}" in lines
    assert any("samples/contact_sheet.png" in line for line in lines)
    assert any("ComfyUI/models/loras/" in line for line in lines)
    snippet = "\n".join(line[4:] for line in lines if line.startswith("    "))
    ast.parse(snippet)
    assert 'load_lora_weights("output/my lora", weight_name="my_lora.safetensors")' in snippet
    assert "a photo of sks" in snippet and "dtype=torch.bfloat16)" in snippet


def test_summary_of_a_whole_model_tells_nothing_about_loras() -> None:
    weights = Path("output/m/m.safetensors")
    lines = summary([weights], step=1, seconds=1)
    assert not any("lora" in line.lower() for line in lines)
    lines = summary([weights], step=1, seconds=1, usage=Usage("P", "b", [Saved(weights.name, "file")]))
    assert not any("lora" in line.lower() for line in lines)
    assert '    pipe.transformer.load_state_dict(load_file("output/m/m.safetensors"))' in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599, "59 min 59 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_memory_is_plausible() -> None:
    assert 5e6 < memory_in_use() < 1e12
    assert format_bytes(812_300_000) == "812 MB" and format_bytes(11_400_000_000) == "11.4 GB"


def test_versions_are_json_and_name_what_matters() -> None:
    found = json.loads(json.dumps(versions({"flux": "pyproject.toml"})))
    assert found["packages"]["torch"] == installed_version("torch")
    assert found["python"].startswith("3.") and found["device"]
    assert found["extensions"] == {"flux": "pyproject.toml"}
    assert installed_version("no-such-package") is None


def test_commit_of_a_clone(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", *arguments],
            cwd=tmp_path,
            env={**os.environ, **identity},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    package = tmp_path / "toolkit"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    git("init", "-q")
    assert commit(package) is None
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert commit(package) == git("rev-parse", "HEAD")
    (package / "a.py").write_text("a = 2\n")
    assert commit(package) == git("rev-parse", "HEAD") + "+changes"
    # Installed inside somebody else's repository, which does not track it.
    foreign = tmp_path / "site-packages"
    foreign.mkdir()
    (foreign / "b.py").write_text("b = 1\n")
    assert commit(foreign) is None
