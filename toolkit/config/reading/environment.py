"""`${NAME}` and `${NAME:-default}` in a config.

References are hidden behind placeholders before the text is parsed and put in afterward: those in comments are never
looked at, values cannot break the syntax, and which key holds a secret is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

REFERENCE = re.compile(r"\$\{([^{}\n]+)\}")
# private-use characters: allowed in YAML, written by nobody
PLACEHOLDER = re.compile("\ue0f0([0-9]+)\ue0f1")


class Environment:
    """The references of one document."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self.variables = os.environ if variables is None else variables
        self.used: dict[str, str] = {}
        """NAME -> value, of all that were looked up."""
        self._references: list[str] = []

    def hide(self, text: str) -> str:
        """The text with a placeholder for each reference; lines stay lines."""

        def replace(found: re.Match[str]) -> str:
            self._references.append(found.group(0))
            return f"\ue0f0{len(self._references) - 1}\ue0f1"

        return REFERENCE.sub(replace, text)

    def written(self, text: str) -> str:
        """The text with its references as they were written."""
        return PLACEHOLDER.sub(lambda found: self._references[int(found.group(1))], text)

    def fill(self, text: str) -> str:
        """The text with the values; KeyError with the name of a variable that is not set."""
        return REFERENCE.sub(lambda found: self._value(found.group(1)), self.written(text))

    def _value(self, reference: str) -> str:
        name, has_default, default = reference.partition(":-")
        value = self.variables.get(name.strip())
        if value is None and not has_default:
            raise KeyError(name.strip())
        if not value and has_default:
            return default
        assert value is not None
        self.used[name.strip()] = value
        return value


def has_reference(text: str) -> bool:
    """True if the text holds a reference, hidden or not."""
    return bool(PLACEHOLDER.search(text) or REFERENCE.search(text))
