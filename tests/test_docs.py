"""The pages under docs/ and the README stay true: names are documented, links and paths exist, examples validate."""

import re
from pathlib import Path

import pytest
import yaml

from toolkit.cli.app import COMMANDS
from toolkit.config import load, validate
from toolkit.registry import KINDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
# a word with a slash, or a file at the top: what a page can name of the repository
REPOSITORY_PATH = re.compile(
    r"(?:toolkit|jobs|extensions_built_in|extensions|config|scripts|tests|docs|datasets)/[\w./-]*|run\.py|pyproject\.toml"
)
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b(?!\.md)|\b(?:foo|mine)\b")


def pages(*names: str) -> list[str]:
    return [page.read_text(encoding="utf-8") for page in PAGES if page.name in names]


def prose(text: str) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", text)


def yaml_jobs() -> list[tuple[str, str]]:
    """(page, text) of every YAML block that is a whole job."""
    found = [
        (page.name, body)
        for page in PAGES
        for language, body in BLOCK.findall(page.read_text(encoding="utf-8"))
        if language == "yaml"
    ]
    return [(name, body) for name, body in found if "job" in (yaml.safe_load(body) or {})]


def named_paths(text: str) -> set[str]:
    """Paths of the repository in code spans, and in commands of shell blocks."""
    spans = SPAN.findall(prose(text))
    commands = [word for language, body in BLOCK.findall(text) if language == "bash" for word in body.split()]
    found = {word for word in (*spans, *commands) if REPOSITORY_PATH.fullmatch(word)}
    return {path for path in found if not PLACEHOLDER.search(path)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_plugin_is_explained(kind: str) -> None:
    (text,) = pages("extending.md")
    assert re.search(rf"^\| `{kind}` \|", text, re.MULTILINE), f"docs/extending.md lacks the kind {kind}"


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_every_command(command: str) -> None:
    (text,) = pages("README.md")
    assert re.search(rf"`aitk {command}\b", text), f"README.md lacks aitk {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(prose(page.read_text(encoding="utf-8")))]
    local = [target for target in targets if target and "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    named = named_paths(page.read_text(encoding="utf-8"))
    assert not sorted(path for path in named if not (ROOT / path).exists())


def test_paths_are_found_in_the_pages() -> None:
    """The test above would pass on pages that it cannot read."""
    (text,) = pages("architecture.md")
    assert len(named_paths(text)) > 40


def test_there_is_a_whole_job_in_the_pages() -> None:
    assert yaml_jobs()


@pytest.mark.parametrize("name, text", yaml_jobs(), ids=lambda value: value if value.endswith(".md") else "")
def test_jobs_validate(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text, encoding="utf-8")
    job = validate(load(file))
    assert job.processes and not job.notices, f"{name}: {job.notices}"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_pages_are_plain_ascii_with_short_lines(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.isascii() and text.endswith("\n")
    # a row of a table cannot be broken
    assert not [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]
