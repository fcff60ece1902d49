"""What a run ran on: packages, commit, device; goes into versions.json and `aitk doctor`."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "safetensors",
    "optimum-quanto",
    "bitsandbytes",
    "prodigyopt",
    "lion-pytorch",
    "pillow",
    "pydantic",
)


def versions(origins: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return packages, commit and device, and from where each extension in use came (`origins`)."""
    return {
        "aitk": installed_version("aitk"),
        "commit": commit(Path(__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "device": device_name(),
        "extensions": dict(origins or {}),
    }


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None; a folder of that name does not count."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit(folder: Path) -> str | None:
    """Return the git commit of the clone that `folder` is in, marked when files differ from it; None without git."""
    head = _git(folder, "rev-parse", "HEAD")
    # An image of the program inside somebody else's repository has no commit of its own.
    if not head or not _git(folder, "ls-files", "--", "."):
        return None
    return head + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")


def device_name() -> str:
    """Return the GPU's name and memory, or the processor's; torch is asked only if the run has loaded it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    if torch is not None and torch.backends.mps.is_available():
        return f"mps, {platform.processor()}"
    return f"cpu, {platform.processor() or platform.machine()}"


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, or None if it cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
