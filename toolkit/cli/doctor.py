"""`aitk doctor`: versions, devices, room, Hub access, and what is missing. The only command that tries imports."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import typer
from packaging.requirements import Requirement

from toolkit.cli.options import AsJson
from toolkit.cli.project import read_project
from toolkit.registry import KINDS, ROOT, Registry, get_registry

OPTIONAL = {
    "bitsandbytes": "optimizer adamw8bit",
    "tensorboard": "logging with TensorBoard (logging.log_dir)",
    "wandb": "logging to Weights & Biases (logging.use_wandb)",
}
GIB = 2**30


def doctor(as_json: AsJson = False) -> None:
    """Ends with exit code 1 if a required package is missing or unfit, or an extension does not load."""
    report = examine(get_registry())
    print(json.dumps(report, indent=2) if as_json else format_report(report))
    raise typer.Exit(1 if report["problems"] else 0)


def examine(registry: Registry) -> dict[str, Any]:
    """Everything that is known about this environment, as plain data."""
    project = read_project()
    requirements = applicable(project["dependencies"])
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "aitk": {"version": project["version"], "folder": str(ROOT)},
        "packages": {one.name: _version(one.name) for one in requirements if one.name not in OPTIONAL},
        "optional": [{"name": n, "version": _version(n), "for": use} for n, use in OPTIONAL.items()],
        "devices": devices(),
        "room": {"disk_free_gib": _free_disk(Path.cwd()), "memory_available_gib": _free_memory()},
        "hub": hub_access(),
        "problems": [*unfit_packages(requirements), *failing_plugins(registry)],
    }


def applicable(requirements: list[str]) -> list[Requirement]:
    """The requirements that hold on this platform and Python."""
    found = [Requirement(text) for text in requirements]
    return [one for one in found if one.marker is None or one.marker.evaluate()]


def unfit_packages(requirements: list[Requirement]) -> list[str]:
    """Required packages that are missing, or of a version that was not tested."""
    problems = []
    for requirement in requirements:
        found = _version(requirement.name)
        if found is None and requirement.name not in OPTIONAL:
            problems.append(f"{requirement.name} is missing: pip install '{requirement.name}{requirement.specifier}'")
        elif found is not None and not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {found} is outside of the tested versions: {requirement.specifier}")
    return problems


def failing_plugins(registry: Registry) -> list[str]:
    """Why plugins do not load; each fails only the run that names it."""
    problems = [str(item) for item in registry.broken]
    for kind in KINDS:
        for name in registry.entries(kind):
            try:
                registry.load(kind, name)
            except ValueError as error:
                problems.append(str(error))
    return problems


def devices() -> list[dict[str, Any]]:
    """What torch can compute on."""
    try:
        import torch
    # A broken driver or a half-installed torch is what this command is for, so any failure is a finding.
    except Exception as error:
        return [{"name": "none", "reason": f"torch does not load: {type(error).__name__}: {error}"}]
    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(
            {
                "name": f"cuda:{index}",
                "model": torch.cuda.get_device_name(index),
                "memory_free_gib": round(free / GIB, 1),
                "memory_total_gib": round(total / GIB, 1),
                "bf16": torch.cuda.is_bf16_supported(),
            }
        )
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "model": platform.processor()})
    return [*found, {"name": "cpu", "model": platform.processor() or platform.machine(), "threads": os.cpu_count()}]


def hub_access() -> dict[str, Any]:
    """Where models are cached and whether a token is set; never the token."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        return {"cache": None, "token": "unknown: huggingface_hub is missing"}
    cache = Path(constants.HF_HUB_CACHE)
    free = _free_disk(next(path for path in (cache, *cache.parents) if path.exists()))
    return {"cache": str(cache), "free_gib": free, "token": "set" if get_token() else "not set"}


def format_report(report: dict[str, Any]) -> str:
    """The report as text."""
    room, hub = report["room"], report["hub"]
    lines = [
        f"aitk      {report['aitk']['version']}  ({report['aitk']['folder']})",
        f"python    {report['python']['version']}  ({report['python']['executable']}; {report['python']['platform']})",
        f"disk      {room['disk_free_gib']} GiB free here; memory: {room['memory_available_gib']} GiB available",
        f"Hub       cache {hub['cache']} ({hub.get('free_gib')} GiB free); token: {hub['token']}",
        "",
        "devices",
        *(
            "  " + "  ".join(f"{key} {value}" if key != "name" else value for key, value in device.items())
            for device in report["devices"]
        ),
        "",
        "packages",
        *(f"  {name:<20}{found or 'missing'}" for name, found in report["packages"].items()),
        "",
        "optional",
        *(f"  {row['name']:<20}{row['version'] or 'missing':<12}for {row['for']}" for row in report["optional"]),
        "",
        "problems" if report["problems"] else "no problems found",
        *(f"  {problem}" for problem in report["problems"]),
    ]
    return "\n".join(lines)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _free_disk(path: Path) -> float:
    return round(shutil.disk_usage(path).free / GIB, 1)


def _free_memory() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    return round(psutil.virtual_memory().available / GIB, 1)
