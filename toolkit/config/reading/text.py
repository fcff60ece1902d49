"""Text -> plain data and the line of each key: YAML, or JSON as a part of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from toolkit.config.errors import ConfigError, KeyPath, Problem
from toolkit.config.reading.environment import Environment, has_reference

FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
INTEGER = re.compile(r"^(?:[-+]?0b[0-1_]+|[-+]?0x[0-9a-fA-F_]+|[-+]?(?:0|[1-9][0-9_]*))$")
SIGN_FIRST = re.compile(r"""\s*(?:- +)?(?:\w+: +)?\[(?:name|trigger)\] *[^\s#,\]]""")
# dates and base-60 numbers stay text: `version: 2024-01-01`, `ratio: 16:9`
KEPT_TAGS = ("bool", "null", "merge", "value")
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class Loader(yaml.SafeLoader):
    """The safe loader, where 1e-4 is a number; PyYAML's own one stays as it is."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag.rpartition(":")[2] in KEPT_TAGS]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", INTEGER, list("-+0123456789"))


@dataclass
class Parsed:
    """Plain data with what is known about it."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    secrets: dict[KeyPath, str] = field(default_factory=dict)
    """Values from the environment, as they were written: ${NAME}."""
    complaints: list[tuple[KeyPath, int, str]] = field(default_factory=list)
    """Path, line and text of what is wrong."""


def parse(text: str, source: str, environment: Environment, language: str = "YAML") -> Parsed:
    """Parse one document; raises ConfigError if it is not readable at all. `language` is what the error calls it."""
    hidden = environment.hide(text)
    loader = None
    try:
        loader = Loader(hidden)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_problem(error, hidden, source, language)]) from None
    finally:
        if loader is not None:
            loader.dispose()
    parsed = Parsed()
    if node is not None:
        parsed.data = _Builder(environment, parsed).build(node, ())
    return parsed


def parse_value(text: str, environment: Environment | None = None) -> Any:
    """One value, as it would stand behind a key. Raises ConfigError if a variable of the environment is not set."""
    parsed = parse(text, "", environment or Environment({}))
    if parsed.complaints:
        raise ConfigError([Problem("", "", message) for _, _, message in parsed.complaints])
    return parsed.data


class _Builder:
    """Turns the nodes of a document into data."""

    def __init__(self, environment: Environment, parsed: Parsed) -> None:
        self.environment, self.parsed = environment, parsed
        self.constructor = yaml.constructor.SafeConstructor()
        self.resolver = Loader("")
        self.open: list[Node] = []

    def build(self, node: Node, path: KeyPath) -> Any:
        self.parsed.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag not in PLAIN_TAGS:
            self.complain(node, path, f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed")
            return None
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if node in self.open:
            self.complain(node, path, "contains itself")
            return None
        self.open.append(node)
        built: Any = self.mapping(node, path) if isinstance(node, MappingNode) else self.sequence(node, path)
        self.open.pop()
        return built

    def sequence(self, node: Node, path: KeyPath) -> list[Any]:
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[MappingNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, ScalarNode):
                self.complain(key_node, path, "a key must be a plain word")
                continue
            key = self.environment.written(key_node.value)
            inner = (*path, key)
            if key in data:
                self.complain(key_node, inner, f"this key is already set in line {self.parsed.lines[inner]}")
                continue
            self.parsed.lines[inner] = key_node.start_mark.line + 1
            data[key] = self.build(value_node, inner)
        for other in merged:
            if not isinstance(other, MappingNode):
                self.complain(other, path, "<< takes a group of keys")
                continue
            for key, value in self.build(other, path).items() if other not in self.open else ():
                data.setdefault(key, value)
        return data

    def scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        if not has_reference(node.value):
            return self.plain(node, path)
        self.parsed.secrets[path] = self.environment.written(node.value)
        try:
            value = self.environment.fill(node.value)
        except KeyError as error:
            name = error.args[0]
            message = f"the environment variable {name} is not set (or write ${{{name}:-default}})"
            self.complain(node, path, message)
            return None
        if node.style is not None:
            return value
        if value[:1] in ("[", "{"):
            try:
                return parse_value(value)
            except ConfigError:
                return value
        tag = self.resolver.resolve(ScalarNode, value, (True, False))
        return self.plain(ScalarNode(tag, value, node.start_mark, node.end_mark), path)

    def plain(self, node: ScalarNode, path: KeyPath) -> Any:
        try:
            value = self.constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self.complain(node, path, str(error))
            return None
        # JSON writes characters beyond U+FFFF as two halves
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value

    def complain(self, node: Node, path: KeyPath, message: str) -> None:
        self.parsed.complaints.append((path, node.start_mark.line + 1, message))


def _syntax_problem(error: yaml.YAMLError, text: str, source: str, language: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    context = getattr(error, "context_mark", None)
    said = " ".join(str(getattr(error, "problem", None) or error).split())
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Problem(f"{source}:{line}", "", f"the character U+{error.character:04X} is not allowed here")
    if mark is None:
        return Problem(source, "", f"this is not valid {language}: {said}")
    if "expected a single document" in str(getattr(error, "context", "")):
        return Problem(f"{source}:{mark.line + 1}", "", "a second document begins here; one file holds one config")
    if "escape" in said:
        message = "a backslash in double quotes; write a path with / in it, or in single quotes"
        return Problem(f"{source}:{mark.line + 1}", "", message)
    if "\\t" in said:
        return Problem(f"{source}:{mark.line + 1}", "", "a tab; YAML is indented with spaces")
    opened = _open_string(text)
    if opened is not None and opened <= mark.line + 1:
        message = f"the string that begins here is not closed (noticed in line {mark.line + 1})"
        return Problem(f"{source}:{opened}", "", message)
    hint = f" (in what begins in line {context.line + 1})" if context and context.line != mark.line else ""
    shown = text.splitlines()[mark.line] if mark.index < len(text) else ""
    if SIGN_FIRST.match(shown):
        hint = "; text that begins with [ needs quotes"
    elif re.search(r"[\"']\\$", shown.rstrip()):
        hint = "; take away the backslash behind the closing quote"
    return Problem(f"{source}:{mark.line + 1}", "", f"this is not valid {language}: {said}{hint}")


def _open_string(text: str) -> int | None:
    """The line where the first string begins that swallows what looks like another entry or key, or the whole rest."""
    scanner = Loader(text)
    try:
        while scanner.check_token():
            token = scanner.get_token()
            if not isinstance(token, yaml.ScalarToken) or token.style not in ("'", '"'):
                continue
            first, last = token.start_mark.line, token.end_mark.line
            inside = text.splitlines()[first + 1 : last + 1]
            if any(re.match(r"\s*(- |[\w.]+:(\s|$))", line) for line in inside):
                return int(first) + 1
    except yaml.YAMLError as error:
        mark = getattr(error, "context_mark", None)
        if "quoted scalar" in str(getattr(error, "context", "")) and mark is not None:
            return int(mark.line) + 1
    finally:
        scanner.dispose()
    return None
