"""The resolved config as YAML: every working key spelled out, loadable again as the same run, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import yaml

from toolkit.config.document import Document
from toolkit.config.errors import KeyPath
from toolkit.config.plugins import ProcessPlugin
from toolkit.config.reading.text import Loader
from toolkit.config.section import Section
from toolkit.config.spellings import FLAGS


class Described(Protocol):
    """A Job or a JobConfig."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    @property
    def document(self) -> Document: ...
    @property
    def processes(self) -> Sequence[ProcessPlugin]: ...


def to_yaml(job: Described, process: ProcessPlugin | None = None, mask_secrets: bool = True) -> str:
    """The config of a job, or of one process of it, as it was understood.

    Values from the environment stay ${NAME} if `mask_secrets`.
    """
    indices = [index for index, other in enumerate(job.processes) if process is None or other is process]
    secrets = job.document.secrets if mask_secrets else {}
    processes = [_plain(job.processes[index], ("config", "process", index), secrets) for index in indices]
    data: dict[str, Any] = {"job": job.kind, "config": {"name": job.name, "process": processes}}
    if ("config", "name") in secrets:
        data["config"]["name"] = secrets["config", "name"]
    if job.meta:
        data["meta"] = _plain(job.document.data.get("meta"), ("meta",), secrets)
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return job.document.mask(text) if mask_secrets else text


def _plain(value: Any, path: KeyPath, secrets: Mapping[KeyPath, str]) -> Any:
    """Plain data, with ${NAME} for secrets."""
    if path in secrets:
        return secrets[path]
    if isinstance(value, Section):
        value = {key: item for key, item in value.spelled_out().items() if not _is_old_flag(key, item)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*path, key), secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index), secrets) for index, item in enumerate(value)]
    return value


def _is_old_flag(key: str, value: Any) -> bool:
    """`is_xl: false` says nothing beside `arch`."""
    return value is False and key in FLAGS


class _Dumper(yaml.SafeDumper):
    """Floats as every reader of YAML takes them, texts with several lines as blocks."""

    # a text is quoted if our reader, or any other one, would take it for something else
    yaml_implicit_resolvers = {
        first: [*Loader.yaml_implicit_resolvers.get(first, []), *resolvers]
        for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _show_float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    mantissa, e, exponent = text.partition("e")
    if e and "." not in mantissa:
        text = f"{mantissa}.0e{exponent}"
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _show_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(float, _show_float)
_Dumper.add_representer(str, _show_text)
