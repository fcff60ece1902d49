"""The notebooks run from the first cell to the last, as they stand, and show what they promise."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebooks'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebooks'")

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # the clone's own module where it is not installed
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("AITK_CACHE", str(folder / "cache"))
    notebook = nbformat.read(file, as_version=4)
    kernel = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    kernel.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    kernel.execute()
    return notebook


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def text(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_the_data_notebook_mirrors_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(ROOT / "notebooks" / "data_step_by_step.ipynb", tmp_path, monkeypatch)
    assert pictures(notebook) == 2
    assert "24 pictures; no problems" in text(notebook) and "1920 x 1080 -> 672 x 384" in text(notebook)
    first, last = text(notebook).rpartition("loss ")[2].split(" -> ")
    assert float(last) < float(first)


def test_the_training_notebook_shows_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(ROOT / "notebooks" / "train_tiny_flux.ipynb", tmp_path, monkeypatch)
    assert pictures(notebook) == 3
    assert (tmp_path / "output" / "notebook" / "notebook.safetensors").is_file()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_are_kept_without_results(file: Path) -> None:
    cells = nbformat.read(file, as_version=4).cells
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert len(cells) > 5
