"""Document -> frozen config, or every error at once. What belongs to one process: process.py."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from toolkit.config.document import Document
from toolkit.config.errors import ConfigError, Notice, Remark
from toolkit.config.launch import read_launcher
from toolkit.config.names import suggestion
from toolkit.config.plugins import JOB_KINDS, LauncherPlugin, ProcessPlugin
from toolkit.config.process import keys_of_config, read_process
from toolkit.config.wording import shorten

AnyRemark = TypeVar("AnyRemark", bound=Remark)
TOP_KEYS = ("job", "config", "meta")
UNUSED = ("is_v2",)
"""Keys of `config` that ai-toolkit reads under `job: train` and no trainer uses."""
NAME_BYTES = 180
"""Of the 255 that systems take, before what steps, suffixes and half-written files add to it."""
CONFIG_KEYS = ("name", "process", "device", "training_folder", "log_dir", "launch", "sweep")


@dataclass(frozen=True)
class JobConfig:
    """One job, ready to run."""

    job: str
    name: str
    meta: Mapping[str, Any]
    """Goes into the header of saved files, so values from the environment stay ${NAME}."""
    processes: tuple[ProcessPlugin, ...]
    notices: tuple[Notice, ...]
    document: Document
    """As read, with spellings read as meant."""
    launcher: LauncherPlugin | None = None
    """Where it runs, if `config.launch` says so."""

    @property
    def kind(self) -> str:
        """The job kind, by the name that a Job has for it."""
        return self.job


def validate(document: Document, allow_unknown: bool = False) -> JobConfig:
    """The config of a document; raises ConfigError with everything that is wrong.

    `allow_unknown` turns unknown keys into notices.
    """
    document = document.copy()
    _check_top(document, allow_unknown)
    name = _check_config(document, allow_unknown)
    job = document.data.get("job")
    processes = [read_process(document, index, job, allow_unknown) for index in range(_count_processes(document))]
    launcher = read_launcher(document)
    if document.problems:
        raise ConfigError(in_order(document.problems))
    built = tuple(process for process in processes if process is not None)
    return JobConfig(
        str(job), name, _masked_meta(document), built, tuple(in_order(document.notices)), document, launcher
    )


def _check_top(document: Document, allow_unknown: bool) -> None:
    data = document.data
    for key in data:
        if key not in TOP_KEYS:
            _refuse_unknown(document, (key,), TOP_KEYS, allow_unknown)
    job = data.get("job")
    if job is None:
        document.complain(("job",), f"missing: the kind of job (known: {', '.join(JOB_KINDS)})")
    elif job not in JOB_KINDS:
        near = suggestion(str(job), JOB_KINDS)
        document.complain(("job",), f"no job kind is named {shorten(job)}{near} (known: {', '.join(JOB_KINDS)})")
    if not isinstance(data.get("meta") or {}, Mapping):
        document.complain(("meta",), "must be a group of keys")


def _check_config(document: Document, allow_unknown: bool) -> str:
    """The keys of `config`; returns the job's name."""
    config = document.data.get("config")
    if not isinstance(config, dict):
        document.complain(("config",), "missing: the group of keys with `name` and `process`")
        return ""
    known = (*CONFIG_KEYS, *keys_of_config(document))
    for key in config:
        if key not in (*known, *UNUSED):
            _refuse_unknown(document, ("config", key), known, allow_unknown)
        elif key not in known and config[key]:
            document.notice(("config", key), "has no effect: the model of each process decides")
    if config.get("sweep") is not None:
        document.complain(("config", "sweep"), "stands for several runs: `aitk run` does them all")
    name = config.get("name")
    if name is None or name == "[name]":
        document.complain(("config", "name"), "missing: the name of the job (or give one with --name)")
    elif not isinstance(name, str | int | float) or isinstance(name, bool):
        document.complain(("config", "name"), f"must be text, not {shorten(name)}")
    elif str(name).strip() in ("", ".", "..") or any(sign in str(name) for sign in "/\\\0\n"):
        document.complain(("config", "name"), f"{shorten(name)} cannot be the name of a folder")
    elif len(str(name).encode("utf-8", "replace")) > NAME_BYTES:
        document.complain(("config", "name"), f"is too long: files are named by it; {NAME_BYTES} bytes at most")
    return str(name)


def _refuse_unknown(document: Document, path: tuple[str, ...], known: tuple[str, ...], allow_unknown: bool) -> None:
    if allow_unknown:
        document.notice(path, "unknown key, left out")
    else:
        document.complain(path, f"unknown key{suggestion(path[-1], known)} (known: {', '.join(known)})")


def _count_processes(document: Document) -> int:
    if not isinstance(document.data.get("config"), dict):
        return 0
    processes = document.get(("config", "process"))
    if not isinstance(processes, list) or not processes:
        document.complain(("config", "process"), "missing: the list of processes")
        return 0
    return len(processes)


def _masked_meta(document: Document) -> dict[str, Any]:
    shown = Document(dict(copy.deepcopy(document.data.get("meta") or {})))
    for path, text in document.secrets.items():
        if path[0:1] == ("meta",):
            shown.set(path[1:], text)
    return shown.data


def in_order(remarks: list[AnyRemark]) -> list[AnyRemark]:
    """Each once, by line; what has no line comes first."""

    def line(remark: Remark) -> int:
        tail = remark.where.rpartition(":")[2]
        return int(tail) if tail.isdecimal() else 0

    return sorted(dict.fromkeys(remarks), key=line)
