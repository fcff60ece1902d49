"""The wheel and the editable install, in an environment where `toolkit`, `jobs` and `extensions` are someone else's."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).resolve().parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
BIN = "Scripts" if sys.platform == "win32" else "bin"

THIRD_PARTY = {
    "pyproject.toml": """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "their-tools"
version = "1.2"
[project.entry-points."aitk.processes"]
say = "their_tools.config:Say"
""",
    "their_tools/__init__.py": "",
    "their_tools/config.py": '''
from typing import Literal
from toolkit.config.plugins import ProcessPlugin
from toolkit.config.section import works

class Say(ProcessPlugin):
    """Write a text."""
    type: Literal["say"]
    text: str = works(..., "What to write.")
    file: str = works(..., "Where to write it.")
    def build(self, job):
        from their_tools.process import SayProcess
        return SayProcess(job.name, self.text, self.file)
''',
    "their_tools/process.py": """
from pathlib import Path

class SayProcess:
    def __init__(self, name, text, file):
        self.name, self.text, self.file = name, text, file
    def run(self):
        Path(self.file).write_text(f"{self.name}: {self.text}")
""",
}


def call(*command: object, cwd: Path | None = None) -> str:
    result = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class Environment:
    """A fresh Python environment that also sees the packages of this one, and foreign packages with our names."""

    def __init__(self, folder: Path) -> None:
        call(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python, self.aitk = folder / BIN / "python", folder / BIN / "aitk"
        self.site = Path(call(self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        (self.site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        for name in ("toolkit", "jobs", "extensions"):
            (self.site / name).mkdir()
            (self.site / name / "__init__.py").write_text("raise ImportError('a foreign package')\n", encoding="utf-8")

    def install(self, *what: object) -> None:
        call(*PIP, "--python", self.python, "install", "-q", "--no-deps", "--no-build-isolation", *what)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    call(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (file,) = folder.glob("aitk-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, a package of someone else and the example extension, installed together."""
    theirs = tmp_path_factory.mktemp("theirs")
    for name, text in THIRD_PARTY.items():
        (theirs / name).parent.mkdir(exist_ok=True)
        (theirs / name).write_text(text, encoding="utf-8")
    environment = Environment(tmp_path_factory.mktemp("installed") / "env")
    environment.install(wheel, theirs, ROOT / "extensions/example")
    return environment


def test_wheel_is_one_module_and_the_app_image(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"aitk.py", "aitk_app"}
    inside = {name.removeprefix("aitk_app/").partition("/")[0] for name in names if name.startswith("aitk_app/")}
    assert inside >= {"run.py", "pyproject.toml", "jobs", "toolkit", "extensions_built_in", "extensions", "datasets"}
    assert not inside & {"tests", "output", "scripts", "aitk.py"}
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_has_every_file_of_the_program_that_git_tracks(wheel: Path) -> None:
    folders = ["jobs", "toolkit", "extensions_built_in", "config", "datasets", "extensions/example"]
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git clone")
    tracked = {f"aitk_app/{name}" for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert not tracked - set(zipfile.ZipFile(wheel).namelist())


def test_installed_command_works_from_anywhere(installed: Environment, tmp_path: Path) -> None:
    assert "Usage: aitk" in call(installed.aitk, "--help", cwd=tmp_path)
    assert call(installed.aitk, "--version", cwd=tmp_path).startswith("aitk ")
    listing = json.loads(call(installed.aitk, "ls", "--json", cwd=tmp_path))
    rows = {row["name"]: row for row in listing["processes"]}
    assert rows["sd_trainer"]["declared_by"] == [str(installed.site / "aitk_app/pyproject.toml")]
    assert rows["say"]["declared_by"] == ["distribution their-tools 1.2"]
    # present as a folder of the app image and as an installed package: one entry
    assert len(rows["count_images"]["declared_by"]) == 1
    assert not listing["broken"]


def test_process_of_an_installed_package_runs(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "job: extension\nconfig:\n  name: hello\n  process:\n    - {type: say, text: good day, file: said.txt}\n",
        encoding="utf-8",
    )
    call(installed.aitk, "run", "job.yaml", cwd=tmp_path)
    assert (tmp_path / "said.txt").read_text(encoding="utf-8") == "hello: good day"


def test_python_api_of_an_installed_wheel(installed: Environment, tmp_path: Path) -> None:
    code = """
import aitk, sys
heavy = {"torch", "pydantic", "yaml", "toolkit"} & set(sys.modules)
assert not heavy, heavy
aitk.run_job({"job": "extension", "config": {"name": "x", "process": [
    {"type": "count_images", "folder": ".", "report": "images.json"}]}})
import toolkit, jobs
print(toolkit.__file__)
"""
    last = call(installed.python, "-c", code, cwd=tmp_path).splitlines()[-1]
    assert Path(last) == installed.site / "aitk_app/toolkit/__init__.py"
    assert json.loads((tmp_path / "images.json").read_text(encoding="utf-8")) == {}


def test_editable_install_exposes_one_module_and_reads_the_clone(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env")
    before = set(environment.site.iterdir())
    environment.install("-e", ROOT)
    new = {path.name for path in set(environment.site.iterdir()) - before}
    assert {name for name in new if not name.endswith(".dist-info")} == {"_aitk.pth"}
    rows = json.loads(call(environment.aitk, "ls", "processes", "--json", cwd=tmp_path))["processes"]
    trainer = next(row for row in rows if row["name"] == "sd_trainer")
    assert trainer["declared_by"] == [str(ROOT / "pyproject.toml")]
    code = "import aitk; from importlib.util import find_spec; print(aitk.__file__, find_spec('build_hook'))"
    assert call(environment.python, "-c", code, cwd=tmp_path).split() == [str(ROOT / "scripts/aitk.py"), "None"]
