"""What a job was submitted with, for whoever wants to know later: versions, environment, changes of the program.

Only variables that say how a program runs are written, and none that looks like a secret.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping

from toolkit.registry import ROOT
from toolkit.reporting.versions import PACKAGES, commit, installed_version

TOLD = re.compile(
    r"(AITK|CUDA|NCCL|TORCH|TORCHINDUCTOR|TRITON|PYTORCH|OMP|MKL|HF|HUGGINGFACE|UCX|FI|GLOO|SLURM|SBATCH|CONDA|XDG|LMOD)_\w+"
    r"|PATH|LD_LIBRARY_PATH|LD_PRELOAD|PYTHON\w*|VIRTUAL_ENV|MODULEPATH|LOADEDMODULES|HOME|USER|SHELL|LANG|TMPDIR"
)
SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CRED|AUTH", re.IGNORECASE)


def describe_environment(env: Mapping[str, str]) -> str:
    """Versions, and the variables that matter, a line each."""
    facts = {
        "aitk": installed_version("aitk") or "not installed",
        "commit": commit(ROOT) or "unknown",
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "working folder": os.getcwd(),
        **{name: version for name in PACKAGES if (version := installed_version(name))},
    }
    told = {name: env[name] for name in sorted(env) if TOLD.fullmatch(name) and not SECRET.search(name)}
    lines = [f"{name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, "", *(f"{name}={' '.join(value.splitlines())}" for name, value in told.items()), ""])


def find_patch() -> str:
    """What differs from the commit in the program's files, if it is a git clone; empty if nothing does."""
    if commit(ROOT) is None:
        return ""
    try:
        shown = subprocess.run(["git", "diff", "HEAD"], cwd=ROOT, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return shown.stdout.decode("utf-8", "replace")
