"""From a config file to a frozen, typed config. Sits below everything that trains; never imports torch.

The names below are imported when they are first used, so that `import toolkit.config` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.config.document import Document
    from toolkit.config.errors import ConfigError, Notice, Problem
    from toolkit.config.explain import to_yaml
    from toolkit.config.job_config import JobConfig, validate
    from toolkit.config.reader import get_config, load

__all__ = ["ConfigError", "Document", "JobConfig", "Notice", "Problem", "get_config", "load", "to_yaml", "validate"]

_HOMES = {
    "ConfigError": "errors",
    "Document": "document",
    "JobConfig": "job_config",
    "Notice": "errors",
    "Problem": "errors",
    "get_config": "reader",
    "load": "reader",
    "to_yaml": "explain",
    "validate": "job_config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
