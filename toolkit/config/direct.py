"""A section made from Python keywords, with the same checks and sentences as one in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from toolkit.config.errors import join
from toolkit.config.section import Section
from toolkit.config.unknown import explain_unknown
from toolkit.config.wording import find

S = TypeVar("S", bound=Section)


def make_section(section: type[S], keys: Mapping[str, Any]) -> S:
    """The section with these keys; raises ValueError that names everything that is wrong with them."""
    try:
        made = section.model_validate(dict(keys))
    except ValidationError as error:
        found = find(error, keys)
        lines = [
            f"{join(item.path)}: {explain_unknown(section, keys, item.path) if item.is_unknown else item.message}"
            for item in found
        ]
        raise ValueError("; ".join(lines)) from None
    wrong = [f"{join(path)}: {message}" for path, message in made.contradictions()]
    if wrong:
        raise ValueError("; ".join(wrong))
    return made
