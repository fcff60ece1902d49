"""`scripts/family_table.py` on reports as pytest writes them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
CASE = '<testcase classname="tests.extensions_built_in.test_families" name="{name}" time="0.1">{inside}</testcase>'
ARCHS = {"red": "flux", "blue": "sd1"}
CONFIGS = {"flux": "train_lora_flux.yaml"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("family_table", ROOT / "scripts" / "family_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["family_table"] = module
    spec.loader.exec_module(module)
    return module


def report_of(folder: Path, *cases: tuple[str, str]) -> Path:
    """A junit report; a case is (name, what is inside of it)."""
    lines = "".join(CASE.format(name=name, inside=inside) for name, inside in cases)
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite name='pytest'>{lines}</testsuite></testsuites>", encoding="utf-8")
    return path


def row_of(text: str, variant: str) -> list[str]:
    """The cells of a variant's row."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {variant} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_report_becomes_a_table(script: ModuleType, tmp_path: Path):
    skipped = '<skipped type="pytest.skip" message="diffusers has no pipeline for it" />'
    report = report_of(
        tmp_path,
        ("test_sampling_equals_the_pipeline[red]", ""),
        ("test_sampling_equals_the_pipeline[blue]", skipped),
        ("test_offloading_changes_no_gradient[red]", '<failure message="off by 1" />'),
        ("test_offloading_changes_no_gradient[blue]", '<error message="no setup" />'),
        ("test_shapes[red]", ""),
        ("test_shapes[blue]", skipped),
        ("test_a_thing_of_no_family", ""),
    )
    text = script.page(script.read(report), ARCHS, CONFIGS)
    head = row_of(text, "variant")
    red, blue = (dict(zip(head, row_of(text, name), strict=True)) for name in ARCHS)
    assert (red["sampling equals diffusers"], blue["sampling equals diffusers"]) == ("yes", "(1)")
    assert red["offload"] == blue["offload"] == "no"
    assert red["quantize"] == "no", "a test that did not run holds nothing"
    assert (red["the other 1 checks"], blue["the other 1 checks"]) == ("yes", "(1)")
    assert (red["example"], blue["example"]) == ("`train_lora_flux.yaml`", "no")
    assert text.endswith("\n(1) Diffusers has no pipeline for it.\n")
    assert text.isascii() and not [line for line in text.splitlines() if len(line) > 120 and line[0] != "|"]


def test_a_report_of_other_tests_is_refused(script: ModuleType, tmp_path: Path):
    with pytest.raises(ValueError, match="no test of"):
        script.read(report_of(tmp_path, ("test_shapes", "")))


def test_archs_of_one_plugin_share_an_example(script: ModuleType):
    found = script.examples()
    assert found["sd1"] == found["sd15"] == "train_lora_sd15.yaml"
    assert found["sdxl"] == "train_lora_sdxl.yaml", "not that of the full fine-tune"
    assert found["flux"] == "train_lora_flux.yaml"


def test_check_notices_a_stale_page(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report, target = report_of(tmp_path, ("test_shapes[sd3]", "")), tmp_path / "families.md"

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["family_table.py", str(report), "--page", str(target), *options])
        return script.main()

    assert run("--check") == 1
    assert run() == 0 and run("--check") == 0
    target.write_text(target.read_text().replace("yes", "no"))
    assert run("--check") == 1
