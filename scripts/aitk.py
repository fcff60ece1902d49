"""The installed module `aitk`: the command of that name, and the public Python API, both imported when used.

`toolkit`, `jobs` and `extensions` are everybody's names, so nothing but this one module is installed; it puts the
folder of the program first on sys.path: the clone, or `aitk_app/` beside this file in a wheel.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE / "aitk_app" if (HERE / "aitk_app").is_dir() else HERE.parent
API = {
    "Dataset": "toolkit.notebook.dataset",
    "run_job": "jobs",
    "get_job": "jobs",
    "Job": "jobs",
    "Stopped": "jobs",
    "ConfigError": "toolkit.config",
    "load": "toolkit.config",
    "validate": "toolkit.config",
    "get_registry": "toolkit.registry",
}
__all__ = [*API, "main"]


def main() -> None:
    """The command `aitk`."""
    sys.exit(_start_module().start(sys.argv[1:]))


def _start_module() -> Any:
    """Our run.py, with the folder of the program first on sys.path."""
    if str(ROOT) not in sys.path[:1]:
        sys.path.insert(0, str(ROOT))
    run = import_module("run")
    if Path(str(run.__file__)).parent != ROOT:
        raise ImportError(f"another module called 'run' is loaded already ({run.__file__}); import aitk before it")
    run.hide_own_datasets()
    return run


def __getattr__(name: str) -> Any:
    if name not in API:
        raise AttributeError(f"module 'aitk' has no attribute '{name}' (it has: {', '.join(API)})")
    _start_module()
    return getattr(import_module(API[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


if __name__ == "__main__":
    main()
