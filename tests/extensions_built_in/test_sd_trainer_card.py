"""The end of a run: the card that it writes, the code in it, and the upload."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, hub_of_the_client
from huggingface_hub import ModelCard

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = {"prompts": ["a cat"], "width": 64, "height": 80, "sample_steps": 2, "guidance_scale": 3.5, "seed": 11}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub_of_the_client(monkeypatch, tmp_path) as served:
        yield served


def run_code(card: str, model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the lines of Python of a card in the folder that it lies in; the pixels of the picture that they make."""
    import numpy as np
    from PIL import Image

    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(folder)
    exec(code[1].replace(f"path/to/{model.name}", model.as_posix()), {})
    return np.asarray(Image.open("picture.png")).astype(int)


def test_a_card_is_written_and_its_code_makes_the_same_picture(
    training: Any, tiny_flux: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    run = training(trigger_word="sks", train={"lr": 0.1}, sample={**SAMPLE, "format": "png"}).run()
    card = ModelCard.load(run.path / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["pipeline_tag"], data["instance_prompt"]) == ("unknown", "text-to-image", "sks")
    assert "base_model" not in data and str(tiny_flux.parent) not in card.text
    picture = run.path / data["widget"][0]["output"]["url"]
    assert data["widget"][0]["text"] == "a cat" and "__000000004_" in picture.name
    assert "max_sequence_length=" in card.text and "| pictures | 6 |" in card.text
    assert "max_sequence_length=" in capsys.readouterr().out
    theirs = run_code(card.text, tiny_flux, run.path, monkeypatch)
    assert np.abs(theirs - np.asarray(Image.open(picture)).astype(int)).max() <= 2


def test_the_code_for_a_whole_model_loads_it(training: Any, tiny_flux: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    from PIL import Image

    run = training(train={"lr": 1e-3}, sample={**SAMPLE, "format": "png"})
    del run.process["network"]
    card = (run.run().path / "README.md").read_text(encoding="utf-8")
    assert "A full fine-tune of `flux`" in card and "lora" not in card.lower()
    theirs = run_code(card, tiny_flux, run.path, monkeypatch)
    newest = max((run.path / "samples").glob("*__000000004_0.png"))
    assert np.abs(theirs - np.asarray(Image.open(newest)).astype(int)).max() <= 2


def test_a_run_whose_upload_fails_is_done_and_uploads_when_it_is_repeated(
    training: Any, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(save={"push_to_hub": True, "hf_repo_id": "ann/mine", "hf_include": ["config"]})
    hub.failing = "/commit"
    assert run.from_command_line() == 0
    out = capsys.readouterr().out
    assert f"aitk publish {run.path} --repo ann/mine" in out and run.final.exists()
    (run.path / "README.md").write_text("# by hand\n", encoding="utf-8")
    hub.failing = ""
    assert run.from_command_line() == 0
    files = hub.repositories["ann/mine"]
    assert set(files) == {"README.md", "config.yaml", "run.safetensors"}
    assert files["run.safetensors"] == run.final.read_bytes() and files["README.md"] == b"# by hand\n"
    assert f"Uploaded: {hub.url}/ann/mine" in capsys.readouterr().out


def test_what_cannot_be_uploaded_is_not_trained(
    training: Any, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(save={"push_to_hub": True, "hf_repo_id": "ann/mine"})
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    assert run.from_command_line() == 2 and not run.path.exists()
    assert "save.hf_repo_id: the token 'for reading' may only read" in capsys.readouterr().err
    for name, text in ((None, "push_to_hub needs the name of a repository"), ("a b", "no name of a repository")):
        run.process["save"]["hf_repo_id"] = name
        assert run.from_command_line() == 2 and text in capsys.readouterr().err
    assert not hub.repositories


def test_a_dry_run_shows_card_and_upload_without_network(training: Any) -> None:
    run = training(trigger_word="sks", save={"push_to_hub": True, "hf_repo_id": "ann/mine", "hf_private": True})
    run.process["model"]["name_or_path"] = "black-forest-labs/FLUX.1-dev"
    code = "import sys, run; code = run.start(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    arguments = [sys.executable, "-c", code, "run", run.written(), "--dry-run"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plan = "upload: final weights, README.md, sample pictures to ann/mine on the Hugging Face Hub, made private if"
    assert plan in done.stdout
    card = ModelCard(done.stdout[done.stdout.index("---\n") :])
    assert card.data.license_name == "flux-1-dev-non-commercial-license" and card.data.base_model is not None
    assert "| steps | 4 |" in card.text and "sks" in card.text
    assert (
        "model card"
        not in subprocess.run(
            [*arguments, "--set", "config.process.0.save.push_to_hub=false"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
