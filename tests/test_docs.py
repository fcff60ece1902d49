"""The pages under docs/ and the README stay true: names are documented, links and paths exist, examples validate."""

import re
from pathlib import Path

import pytest
import yaml

from toolkit.cli.app import COMMANDS
from toolkit.config import load, validate
from toolkit.config.preflight import preflight
from toolkit.config.section import state_of
from toolkit.config.sections.dataset import DatasetSection
from toolkit.config.sections.model import ModelPlugin
from toolkit.config.sections.network import LayerChoice, NetworkPlugin
from toolkit.config.sections.sample import SampleItem, SampleSection
from toolkit.config.sections.save import SaveSection
from toolkit.config.sections.train import TrainSection
from toolkit.registry import KINDS, get_registry
from toolkit.sampling.prompt_flags import FLAGS

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
EXAMPLES = sorted((ROOT / "config" / "examples").glob("train_*_*.yaml"))
MADE_HERE = "train_tiny_flux.yaml"
"""How the embedded model was made; the other examples are starting points for users."""
USERS_PATH = "/path/to/"
"""What a user replaces in an example."""
SECTIONS = {
    "model": ModelPlugin,
    "network": NetworkPlugin,
    "network_kwargs": LayerChoice,
    "train": TrainSection,
    "datasets": DatasetSection,
    "save": SaveSection,
    "sample": SampleSection,
}


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


def test_every_key_and_flag_of_samples_is_explained() -> None:
    (text,) = pages("samples.md")
    keys = [key for section in (SampleSection, SampleItem) for key in section.model_fields]
    assert not [name for name in (*keys, *(f"--{flag}" for flag in FLAGS)) if f"`{name}`" not in text]


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


def arch_of(example: Path) -> str:
    (process,) = yaml.safe_load(example.read_text(encoding="utf-8"))["config"]["process"]
    return process["model"]["arch"]


def families() -> list[tuple[str, ...]]:
    """The names that share a plugin, of all built-in families."""
    names: dict[str, list[str]] = {}
    for arch, entry in get_registry().entries("models").items():
        if entry.target.startswith("extensions_built_in."):
            names.setdefault(entry.target, []).append(arch)
    return [tuple(group) for group in names.values()]


@pytest.mark.parametrize("names", families(), ids=lambda names: names[0])
def test_every_family_has_an_example_and_is_listed(names: tuple[str, ...]) -> None:
    examples = {name: ROOT / "config" / "examples" / f"train_lora_{name}.yaml" for name in names}
    assert [name for name, path in examples.items() if path.exists() and arch_of(path) == name]
    (text,) = pages("training.md")
    assert not [name for name in names if f"`{name}`" not in text], "docs/training.md lacks these"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_pass_the_check(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `aitk check` does it, but for what the user has to fill in."""
    monkeypatch.chdir(ROOT)
    job = validate(load(example))
    if example.name != MADE_HERE:
        assert not job.notices
        assert not [problem for problem in preflight(job) if USERS_PATH not in problem.message]


@pytest.mark.parametrize("example", [path for path in EXAMPLES if path.name != MADE_HERE], ids=lambda path: path.stem)
def test_examples_look_alike(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert text.isascii() and "\t" not in text and text.endswith("\n")
    assert not [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip()]
    begin, _, body = text.partition("\njob: extension\n")
    assert all(line.startswith("#") for line in begin.splitlines())
    assert f"#   aitk run config/examples/{example.name}" in begin
    assert "estimated" in begin, "no hardware was measured"
    kind = example.stem.split("_")[1]
    assert body.count("      network:\n") == (kind != "full") and (kind == "full" or f"type: {kind}\n" in body)


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "differences.md"], ids=lambda page: page.name)
def test_keys_that_pages_name_work(page: Path) -> None:
    """A page that explains a key which is not there, or not there yet, misleads."""
    wrong = []
    for span in SPAN.findall(prose(page.read_text(encoding="utf-8"))):
        section, _, key = span.partition(":")[0].rpartition(".")
        plugin = SECTIONS.get(section.rpartition(".")[2])
        if plugin is not None and re.fullmatch(r"[a-z_0-9]+", key):
            field = plugin.model_fields.get(key)
            if field is None or state_of(field) == "planned":
                wrong.append(span)
    assert not wrong
