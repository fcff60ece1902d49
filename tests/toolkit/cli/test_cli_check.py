"""`aitk check`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from toolkit.cli.app import run_command_line

ROOT = Path(__file__).resolve().parents[3]
CONFIG = """\
job: extension
config:
  name: test_lora
  process:
    - type: sd_trainer
      training_folder: output
      network: {type: lora, linear: 16, linear_alpha: 8}
      datasets:
        - folder_path: pictures
          resolution: [512, 768]
      train: {steps: 100, lr: 1e-4, optimizer: adamw8bit}
      model: {name_or_path: owner/model, arch: flux}
"""


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    Image.new("RGB", (8, 8)).save("pictures/a.png")
    Path("good.yaml").write_text(CONFIG, encoding="utf-8")
    Path("bad.yaml").write_text(CONFIG.replace("steps: 100", "stepps: 100, x: 1"), encoding="utf-8")
    return tmp_path


def test_a_good_config_is_summed_up(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check", "good.yaml"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "good.yaml: ok: job extension 'test_lora'",
        "  process sd_trainer",
        "    model: owner/model (flux)",
        "    trains: lora of rank 16",
        "    data set: pictures (1 pictures at 512, 768)",
        "    steps: 100, batch size 1, adamw8bit, lr 0.0001 (constant)",
        f"    results: {Path('output/test_lora')}",
        "note: good.yaml:7: network.linear_alpha: scales the update by 8/16"
        " (ai-toolkit ignores it on transformer models)",
    ]


def test_videos_are_counted_beside_pictures(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures/b.mp4").touch()
    assert run_command_line(["check", "good.yaml"]) == 0 and "(1 pictures at" in capsys.readouterr().out
    Path("video.yaml").write_text(CONFIG.replace("resolution:", "num_frames: 9\n          resolution:"))
    assert run_command_line(["check", "video.yaml"]) == 0 and "(2 pictures and videos at" in capsys.readouterr().out


def test_problems_go_to_stderr_one_line_each(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check", "bad.yaml", "missing", "good.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("good.yaml: ok")
    lines = err.splitlines()
    assert lines[0] == "bad.yaml:11: train.stepps: unknown key; did you mean 'steps'?"
    assert lines[1] == "bad.yaml:11: train.x: unknown key"
    assert lines[2].startswith("missing: no such config file")
    assert len(lines) == 3


def test_options(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check", "bad.yaml", "--allow-unknown"]) == 0
    assert "note: bad.yaml:11: train.x: unknown key, left out" in capsys.readouterr().out
    assert run_command_line(["check", "good.yaml", "--set", "train.steps=7", "--set", "name=b"]) == 0
    out = capsys.readouterr().out
    assert "steps: 7," in out
    assert "job extension 'b'" in out
    assert run_command_line(["check", "good.yaml", "--set", "train.stps=7"]) == 2
    assert "did you mean 'steps'?" in capsys.readouterr().err
    Path("good.yaml").write_text(CONFIG.replace("test_lora", '"[name]"'), encoding="utf-8")
    assert run_command_line(["check", "good.yaml", "-n", "mine"]) == 0
    assert "job extension 'mine'" in capsys.readouterr().out
    assert run_command_line(["check", "good.yaml"]) == 2


def test_a_missing_folder_is_an_error(ready: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["check", "good.yaml", "--set", "datasets.0.folder_path=picture"]) == 2
    line = "--set datasets.0.folder_path=picture: datasets.0.folder_path: there is no folder picture"
    assert capsys.readouterr().err.startswith(line)


def test_check_imports_nothing_heavy(ready: Path) -> None:
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from toolkit.cli.app import run_command_line;"
        "code = run_command_line(['check', 'good.yaml']);"
        "print(json.dumps([code, sorted(name for name in sys.modules if '.' not in name)]))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True)
    returned, modules = json.loads(result.stdout.splitlines()[-1])
    assert returned == 0
    heavy = {"torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "PIL", "safetensors", "einops"}
    assert heavy & set(modules) == set()
