"""The resolved config, the JSON Schema and the starter config."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from toolkit.config import JobConfig, load, to_yaml, validate
from toolkit.config.json_schema import json_schema
from toolkit.config.starter import starter

Read = Callable[..., JobConfig]


def test_the_resolved_config_is_the_same_run(read: Read, folder: Path) -> None:
    config = read(
        network_kwargs={"only_if_contains": ["blocks.1"]},
        train={"lr": 1e-5, "optimizer": "AdamW8bit", "gradient_clipping": 0.5, "lr_warmup_steps": 10},
        datasets=[{"repeats": 2, "resolution": [512, 512, 768], "default_caption": "two\nlines: yes"}],
        sample={"prompts": ["a cat", "on", "1e-4", "caf\u00e9 #1"], "neg": ""},
        trigger_word="tok",
    )
    Path("saved.yaml").write_text(to_yaml(config), encoding="utf-8")
    again = validate(load("saved.yaml"))
    # options of the optimizer are spelled out in the file
    first, second = config.processes[0].model_dump(), again.processes[0].model_dump()
    assert first["train"].pop("optimizer_params") == {}
    assert second["train"].pop("optimizer_params")["weight_decay"] == 0.01
    assert first == second
    assert to_yaml(again) == to_yaml(config)
    said = [str(notice) for notice in again.notices]
    assert not [line for line in said if "read as" in line]


def test_every_working_default_is_spelled_out_and_no_planned_one(read: Read) -> None:
    process = yaml.safe_load(to_yaml(read()))["config"]["process"][0]
    assert process["train"]["max_grad_norm"] == 1.0
    assert process["train"]["ema_config"] == {"use_ema": False, "ema_decay": 0.999}
    assert process["datasets"][0]["background"] == [255, 255, 255]
    assert "learnable_snr_gos" not in process["train"]
    assert "is_xl" not in process["model"]
    assert "1.0e-05" in to_yaml(read(train={"lr": 1e-5}))


def test_secrets_stay_names(changed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/secret/models")
    monkeypatch.setenv("TRIGGER", "0007")
    monkeypatch.setenv("TOKEN", "hf_verysecret")
    data = changed(
        model={"arch": None, "is_flux": True, "name_or_path": "${MODELS}/flux"},
        trigger_word="${TRIGGER}",
        train={"gradient_clipping": "${CLIP:-0.5}"},
    )
    data["meta"] = {"token": "${TOKEN}", "note": "[name]"}
    config = validate(load(data))
    process: Any = config.processes[0]
    assert (process.model.name_or_path, process.trigger_word) == ("/secret/models/flux", "0007")
    assert config.meta == {"token": "${TOKEN}", "note": "test_lora"}
    text = to_yaml(config)
    for secret in ("/secret/models", "hf_verysecret", "0007"):
        assert secret not in text
    saved = yaml.safe_load(text)
    assert saved["config"]["process"][0]["datasets"][0]["trigger_word"] == "${TRIGGER}"
    assert saved["config"]["process"][0]["train"]["max_grad_norm"] == "${CLIP:-0.5}"
    assert validate(load(saved)).processes[0].model_dump() | {"train": 0} == process.model_dump() | {"train": 0}
    assert "/secret/models" in to_yaml(config, mask_secrets=False)


def test_one_process_of_several_can_be_written(changed: Callable[..., Any]) -> None:
    data = changed()
    data["config"]["process"].append({"type": "count_images", "folder": "x", "report": "y"})
    config = validate(load(data))
    (written,) = yaml.safe_load(to_yaml(config, config.processes[1]))["config"]["process"]
    assert written["type"] == "count_images"


# ---- JSON Schema


def test_the_schema_offers_plugins_keys_and_descriptions() -> None:
    schema = json_schema()
    definitions = schema["definitions"]
    (trainer,) = [
        value
        for key, value in definitions.items()
        if "sd_trainer" in value["properties"].get("type", {}).get("enum", ())
    ]
    assert trainer["additionalProperties"] is False
    archs = {name for key, value in definitions.items() if key.startswith("models.") for name in _enum(value, "arch")}
    assert {"flux", "example_pixels"} <= archs
    train = definitions[trainer["properties"]["train"]["allOf"][0]["$ref"].rpartition("/")[2]]["properties"]
    assert train["steps"] == {
        "default": 1000,
        "description": "Number of updates; the run ends there.",
        "minimum": 1,
        "type": "integer",
    }
    assert train["learnable_snr_gos"]["deprecated"] is True
    assert train["learnable_snr_gos"]["description"].startswith("Not supported yet.")
    assert "adamw8bit" in train["optimizer"]["anyOf"][0]["enum"]
    assert "bfloat16" in train["dtype"]["enum"]


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json_schema()
    references = list(_references(schema))
    assert len(references) > 10
    assert {reference.removeprefix("#/definitions/") for reference in references} <= set(schema["definitions"])
    assert "x-aitk-choice" not in str(schema)
    assert "'neutral'" not in str(schema)


def _enum(definition: dict[str, Any], key: str) -> list[str]:
    return definition["properties"].get(key, {}).get("enum", [])


def _references(value: Any) -> Any:
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key == "$ref")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _references(item)


# ---- starter


def test_the_starter_is_valid_short_and_says_nothing(folder: Path) -> None:
    Path("cat.yaml").write_text(starter("flux", "cat"), encoding="utf-8")
    config = validate(load("cat.yaml"))
    said = [str(notice) for notice in config.notices]
    assert [line for line in said if "[trigger]" not in line] == []
    assert config.name == "cat"
    assert len(starter("flux").splitlines()) < 50
    with pytest.raises(ValueError, match="did you mean 'flux'"):
        starter("fluxx")


def test_the_suggestions_in_the_starter_are_valid_too(folder: Path) -> None:
    lines = starter("flux").splitlines()
    text = "\n".join(
        line.replace("# trigger_word", "trigger_word").replace("# ema_config", "ema_config") for line in lines
    )
    Path("cat.yaml").write_text(text, encoding="utf-8")
    process: Any = validate(load("cat.yaml")).processes[0]
    assert process.trigger_word == "m1k4"
    assert process.train.ema_config.use_ema
