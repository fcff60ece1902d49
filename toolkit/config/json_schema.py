"""The JSON Schema of a config, with all registered plugins as alternatives: what `aitk schema` prints for editors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.config.plugins import JOB_KINDS
from toolkit.config.walk import takes_any_key
from toolkit.registry import get_registry

REFERENCE = "#/definitions/"


def json_schema() -> dict[str, Any]:
    """The schema as plain data (draft 7, which editors read best). Plugins that do not load are left out."""
    definitions: dict[str, Any] = {}
    processes = _alternatives("processes", "type", definitions)
    launchers = _alternatives("launchers", "type", definitions)
    for definition in definitions.values():
        if "optimizer_params" in definition["properties"]:
            # editors offer the names, and accept others
            names = {"enum": list(get_registry().entries("optimizers"))}
            definition["properties"]["optimizer"]["anyOf"] = [names, {"type": "string"}]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "aitk job",
        "type": "object",
        "required": ["job", "config"],
        "additionalProperties": False,
        "properties": {
            "job": {"enum": list(JOB_KINDS), "description": "The kind of job; `extension` is what most configs say."},
            "config": {
                "type": "object",
                "required": ["name", "process"],
                "additionalProperties": False,
                "properties": {
                    "name": {
                        "type": "string",
                        "description": "Names the folder and the files; `[name]` stands for it.",
                    },
                    "process": {"type": "array", "minItems": 1, "items": processes, "description": "What is done."},
                    "device": {"type": "string", "description": "`device` of every process."},
                    "training_folder": {"type": "string", "description": "`training_folder` of every process."},
                    "log_dir": {"type": "string", "description": "`log_dir` of every process."},
                    "launch": {"description": "Where the job runs.", "allOf": [launchers]},
                    "sweep": _sweep(),
                },
            },
            "meta": {"type": "object", "description": "Goes into the header of saved files."},
        },
        "definitions": definitions,
    }


def _sweep() -> dict[str, Any]:
    """The schema of `config.sweep`, whose keys are those of the process."""
    columns = {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}}
    return {
        "type": "object",
        "description": "Several runs that differ in a few keys, written as for --set: train.lr.",
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {
            "grid": {**columns, "description": "Every combination of these values."},
            "zip": {**columns, "description": "The first value of each list, then the second, and so on."},
            "list": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "minProperties": 1},
                "description": "The keys and values of each run.",
            },
        },
    }


def _alternatives(kind: str, by: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value for which `by` picks the plugin."""
    references = []
    for plugin, names in _plugins(kind):
        key = f"{kind}.{names[0]}"
        if key not in definitions:
            definitions[key] = {}
            definitions[key] = _plugin_schema(plugin, key, by, names, definitions)
        references.append({"$ref": REFERENCE + key})
    return references[0] if len(references) == 1 else {"anyOf": references}


def _plugins(kind: str) -> Iterator[tuple[Any, list[str]]]:
    """Every plugin class of a kind that loads, with its names."""
    registry = get_registry()
    by_class: dict[Any, list[str]] = {}
    for name in registry.entries(kind):
        try:
            by_class.setdefault(registry.load(kind, name), []).append(name)
        except ValueError:
            continue
    yield from by_class.items()


def _plugin_schema(plugin: Any, key: str, by: str, names: list[str], definitions: dict[str, Any]) -> dict[str, Any]:
    schema = plugin.model_json_schema(ref_template=REFERENCE + key + ".{model}")
    inner = {f"{key}.{name}": section for name, section in schema.pop("$defs", {}).items()}
    schema = _tidy(schema, definitions)
    for name, section in inner.items():
        definitions[name] = _tidy(section, definitions)
    schema["properties"][by] = {"enum": names, "description": (plugin.__doc__ or "").strip().partition("\n")[0]}
    if not takes_any_key(plugin):
        schema["additionalProperties"] = False
    return dict(schema)


def _tidy(value: Any, definitions: dict[str, Any]) -> Any:
    """What editors show well: no titles, no default groups, planned keys marked, plugins instead of placeholders."""
    if isinstance(value, list):
        return [_tidy(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: item for key, item in value.items() if key not in ("state", "neutral", "needs", "why", "x-aitk-choice")
    }
    if isinstance(kept.get("title"), str):
        del kept["title"]
    if isinstance(kept.get("default"), dict):
        del kept["default"]
    kept = {key: _tidy(item, definitions) for key, item in kept.items()}
    if "x-aitk-choice" in value:
        kept.pop("type", None)
        kind, by = value["x-aitk-choice"]
        kept.update(_alternatives(kind, by, definitions))
    if value.get("state") == "planned":
        kept["description"] = f"Not supported yet. {kept.get('description', '')}".strip()
        kept["deprecated"] = True
    elif value.get("state") == "idle":
        kept["description"] = f"Without effect: {kept.get('description', '')}"
    # beside a $ref, draft 7 ignores everything else
    reference = kept.pop("$ref", None) if len(kept) > 1 else None
    return {**kept, "allOf": [{"$ref": reference}]} if reference else kept
