"""Site profiles: what a cluster wants of every job, in one file of the user's config folder instead of every config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from toolkit.config.document import Document
from toolkit.config.names import suggestion
from toolkit.config.reading.environment import Environment
from toolkit.config.reading.text import parse

DEFAULT = "default"
"""The profile of a config that names none."""
NOT_IN_PROFILES = ("type", "profile")


def profile_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where the profiles are: aitk/slurm in `$XDG_CONFIG_HOME`, or in ~/.config."""
    home = env.get("XDG_CONFIG_HOME", "").strip()
    return Path(home or os.path.expanduser("~/.config"), "aitk", "slurm")


def profile_path(name: str, env: Mapping[str, str] = os.environ) -> Path:
    """The file of a profile. ValueError for a name that cannot be one."""
    if not name.strip() or name.startswith(".") or any(sign in name for sign in "/\\\0\n"):
        raise ValueError(f"'{name}' cannot be the name of a profile")
    return profile_folder(env) / f"{name}.yaml"


def profile_names(env: Mapping[str, str] = os.environ) -> list[str]:
    """The profiles that are there."""
    return sorted(path.stem for path in profile_folder(env).glob("*.yaml") if path.is_file())


def read_profile(name: str | None, env: Mapping[str, str] = os.environ) -> Document | None:
    """The keys of a profile; None: of the default one, which need not be there.

    Raises ValueError for a profile that is not there, ConfigError for one that cannot be read.
    """
    path = profile_path(name or DEFAULT, env)
    if not path.is_file():
        if name is None:
            return None
        known = profile_names(env)
        listed = f"known: {', '.join(known)}" if known else "there are none yet; see `aitk slurm profile`"
        raise ValueError(f"there is no profile '{name}' ({path}){suggestion(name, known)} ({listed})")
    environment = Environment()
    parsed = parse(path.read_text(encoding="utf-8-sig"), str(path), environment)
    data = {} if parsed.data is None else parsed.data
    if not isinstance(data, dict):
        raise ValueError(f"{path} must be a group of keys, those of `launch` in a config")
    document = Document(data, str(path), parsed.lines, secrets=parsed.secrets, environment=environment.used)
    for place, _, message in parsed.complaints:
        document.complain(place, message)
    for key in NOT_IN_PROFILES:
        if key in data:
            document.complain((key,), "says nothing in a profile; leave it out")
    return document
