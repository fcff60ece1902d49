"""Writes docs/families.md from what the contract test of the model families did.

python -m pytest tests/extensions_built_in/test_families.py --junitxml=report.xml
python scripts/family_table.py report.xml            # --check: only compare, exit code 1 if the page is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# This clone's datasets/ folder is not the library of that name, which transformers would believe to be installed.
sys.modules["datasets"] = None  # type: ignore[assignment]

import argparse
import importlib
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree import ElementTree

import yaml

from toolkit.registry import get_registry

PAGE = ROOT / "docs" / "families.md"
PREFIX = "train_lora_"
YES, NO = "yes", "no"
COLUMNS = {
    "test_a_job_trains_samples_and_saves": "train, sample, save",
    "test_sampling_equals_the_pipeline": "sampling equals diffusers",
    "test_a_lora_file_acts_in_diffusers_as_here": "LoRA file loads in diffusers",
    "test_a_full_fine_tune_opens_in_diffusers": "full fine-tune",
    "test_8_bit_weights_stay_near_fp32_and_carry_a_lora": "quantize",
    "test_offloading_changes_no_gradient": "offload",
    "test_checkpointing_changes_no_gradient": "checkpointing",
}
HEAD = """# Model families

What the tests did with every variant of every family, on the real classes with tiny random weights and on a CPU. "yes"
is a test that passed, "no" one that failed or did not run, a number one that was left out, with the reason below. This
page is written by `scripts/family_table.py` from the report of a test run, never by hand. What the tests are:
[new_family.md](new_family.md#7-the-contract-test). Where a pipeline of diffusers has no loader for LoRAs, the
file was put into its transformer ([formats.md](formats.md#which-names-and-who-reads-them)).

"""
OTHERS = "the other {count} checks"
"""Column for all tests that have none of their own."""


@dataclass
class Variant:
    """One row: a variant of a family and what became of each test."""

    name: str
    outcomes: dict[str, str] = field(default_factory=dict)
    """Test -> "yes", "no", or the reason why it was left out."""


def read(report: Path) -> list[Variant]:
    """The variants of a junit report, by name."""
    found: dict[str, Variant] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        match = re.fullmatch(r"(test_\w+)\[([^\]]+)\]", case.get("name", ""))
        if not match or not case.get("classname", "").endswith("test_families"):
            continue
        test, name = match.groups()
        skipped = case.find("skipped")
        failed = case.find("failure") is not None or case.find("error") is not None
        outcome = NO if failed else skipped.get("message", "") if skipped is not None else YES
        found.setdefault(name, Variant(name)).outcomes[test] = outcome
    if not found:
        raise ValueError(f"{report}: no test of tests/extensions_built_in/test_families.py is in it")
    return [found[name] for name in sorted(found)]


def examples() -> dict[str, str]:
    """arch, or variant, -> the example config that trains a LoRA on it; archs that share a plugin share an example."""
    found: dict[str, str] = {}
    targets = {arch: entry.target for arch, entry in get_registry().entries("models").items()}
    for path in sorted((ROOT / "config" / "examples").glob(f"{PREFIX}*.yaml")):
        for process in yaml.safe_load(path.read_text(encoding="utf-8"))["config"]["process"]:
            named = process["model"]["arch"]
            for arch in [arch for arch, target in targets.items() if target == targets.get(named)]:
                found.setdefault(arch, path.name)
        found[path.stem.removeprefix(PREFIX)] = path.name
    return found


def page(variants: list[Variant], archs: Mapping[str, str], configs: Mapping[str, str]) -> str:
    """The text of docs/families.md; `archs`: variant -> arch, `configs`: arch -> example."""
    others = sorted({test for variant in variants for test in variant.outcomes} - COLUMNS.keys())
    titles = [*COLUMNS.values(), OTHERS.format(count=len(others))]
    reasons: list[str] = []
    lines = ["| variant | `model.arch` | " + " | ".join(titles) + " | example |"]
    lines.append("| --- " * (len(titles) + 3) + "|")
    for variant in variants:
        cells = [_cell([variant.outcomes.get(test, NO)], reasons) for test in COLUMNS]
        cells.append(_cell([variant.outcomes.get(test, NO) for test in others], reasons))
        arch = archs[variant.name]
        named = configs.get(variant.name.replace("-", "_"), configs.get(arch))
        example = f"`{named}`" if named else NO
        lines.append(f"| {variant.name} | `{arch}` | " + " | ".join(cells) + f" | {example} |")
    notes = "".join(f"\n({number}) {_plain(reason)}\n" for number, reason in enumerate(reasons, 1))
    return HEAD + "\n".join(lines) + "\n" + notes


def _cell(outcomes: list[str], reasons: list[str]) -> str:
    """What the table says of these outcomes; `reasons` collects why tests were left out."""
    if NO in outcomes:
        return NO
    left_out = list(dict.fromkeys(outcome for outcome in outcomes if outcome != YES))
    reasons += [reason for reason in left_out if reason not in reasons]
    marks = " ".join(f"({reasons.index(reason) + 1})" for reason in left_out)
    return marks or YES


def _plain(reason: str) -> str:
    """A reason as a sentence, in lines of at most 118 columns."""
    sentence = reason[:1].upper() + reason[1:].rstrip(".") + "."
    return textwrap.fill(sentence, 118)


def archs_of_cases() -> dict[str, str]:
    """variant -> arch, from the cases of the contract test."""
    sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "tests" / "extensions_built_in")]
    files = sorted((ROOT / "tests" / "extensions_built_in").glob("*_case.py"))
    return {name: case.arch for file in files for name, case in importlib.import_module(file.stem).CASES.items()}


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="junit report of a test run")
    parser.add_argument("--check", action="store_true", help="do not write; fail if the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/families.md")
    chosen = parser.parse_args()
    text = page(read(chosen.report), archs_of_cases(), examples())
    if not chosen.check:
        chosen.page.write_text(text, encoding="utf-8")
        return 0
    if not chosen.page.exists() or chosen.page.read_text(encoding="utf-8") != text:
        print(f"{chosen.page} is not what the tests did; run scripts/family_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
