"""What a run leaves: names that count updates, the manifest, headers, and no secret in any file."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml


def test_the_number_in_a_name_is_the_number_of_updates(training: Any, identical: Any) -> None:
    long = training("long", train={"steps": 7}, save={"save_every": 2, "max_step_saves_to_keep": 2}).run()
    short = training("short", train={"steps": 4}).run()
    assert identical(long.weights(4), short.weights())
    assert not identical(long.weights(6), long.weights())
    assert long.header(4)["ss_steps"] == "4" and long.header()["ss_steps"] == "7"
    names = {path.name for path in long.path.iterdir()}
    assert names == {
        "long.safetensors",
        "long_000000004.safetensors",
        "long_000000006.safetensors",
        "checkpoints.json",
        "config.yaml",
        "metrics.jsonl",
        "optimizer.pt",
        "README.md",
        "status.json",
        "versions.json",
    }
    listed = json.loads((long.path / "checkpoints.json").read_text())["checkpoints"]
    assert [(entry["step"], entry["final"], entry["files"]) for entry in listed] == [
        (4, False, ["long_000000004.safetensors"]),
        (6, False, ["long_000000006.safetensors"]),
        (7, True, ["long.safetensors"]),
    ]


def test_a_step_save_at_the_end_is_the_final_file(training: Any) -> None:
    run = training(save={"save_every": 2}).run()
    assert run.final.exists() and run.step_file(2).exists() and not run.step_file(4).exists()


def test_the_header_says_what_readers_look_for(training: Any, tiny_flux: Any) -> None:
    run = training("run", trigger_word="mochi", network={"linear": 2, "linear_alpha": 4})
    run.config["meta"] = {"name": "[name]", "version": "1.0", "tags": ["a", "b"]}
    header = run.run().header()
    assert header["format"] == "pt"
    assert json.loads(header["software"])["name"] == "aitk"
    assert json.loads(header["training_info"]) == {"step": 4, "epoch": 1}
    assert header["ss_base_model_version"] == "flux.1"
    assert header["ss_output_name"] == "run"
    assert json.loads(header["ss_tag_frequency"]) == {"1_mochi": {"mochi": 1}}
    assert len(header["sshs_model_hash"]) == 64
    assert (header["ss_network_dim"], float(header["ss_network_alpha"])) == ("2", 4.0)
    assert header["base_model"] == str(tiny_flux)
    assert (header["name"], header["version"], json.loads(header["tags"])) == ("run", "1.0", ["a", "b"])


def test_the_config_hash_changes_with_the_config(training: Any) -> None:
    run = training().run()
    digest = run.header()["config_hash"]
    assert run.run().header()["config_hash"] == digest
    assert run.but(train={"lr": 2e-2}).run().header()["config_hash"] != digest


def test_secrets_of_the_environment_are_in_no_file(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPLOAD_TOKEN", "hf_SoVerySecret")
    run = training("run", save={"hf_repo_id": "me/${UPLOAD_TOKEN}"}, trigger_word="${UPLOAD_TOKEN}")
    run.config["meta"] = {"token": "${UPLOAD_TOKEN}", "all": ["Bearer ${UPLOAD_TOKEN}"]}
    assert run.from_command_line() == 0
    for name, content in run.files().items():
        assert b"SoVerySecret" not in content, name
    assert run.header()["token"] == "${UPLOAD_TOKEN}"
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["config"]["process"][0]["save"]["hf_repo_id"] == "me/${UPLOAD_TOKEN}"


def test_the_resolved_config_makes_the_same_run(training: Any, identical: Any) -> None:
    from jobs import run_job

    first = training("run", train={"lr_scheduler": "cosine", "timestep_type": "weighted"}).run()
    text = (first.path / "config.yaml").read_text().replace("name: run\n", "name: again\n")
    run_job(yaml.safe_load(text))
    again = training("again")
    assert identical(again.state(), first.state())


@pytest.mark.parametrize(
    ("network", "save", "is_shown"),
    [
        ({"type": "lora"}, {}, True),
        ({"type": "dora"}, {}, False),
        ({"type": "lokr"}, {}, False),
        ({"type": "lora"}, {"key_format": "comfyui"}, False),
    ],
)
def test_only_files_that_diffusers_reads_come_with_lines_to_load_them(
    training: Any, capsys: pytest.CaptureFixture[str], network: Any, save: Any, is_shown: bool
) -> None:
    training(network=network, save=save).run()
    assert ("load_lora_weights" in capsys.readouterr().out) == is_shown
