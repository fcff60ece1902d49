"""A file system of its own that is soon full, for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def mount_small(folder: Path, megabytes: int) -> Path:
    """Make the folder a file system of that size, which the caller unmounts; skips the test where that is forbidden."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    return folder
