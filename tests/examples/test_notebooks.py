"""The notebooks are those of their scripts, and run from the first cell to the last."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from helpers import ROOT

REASON = "notebooks are made and run with jupytext, nbclient and ipykernel (extra dev)"
nbformat: Any = pytest.importorskip("nbformat", reason=REASON)
nbclient: Any = pytest.importorskip("nbclient", reason=REASON)
for package in ("jupytext", "ipykernel"):
    pytest.importorskip(package, reason=REASON)

FOLDER = ROOT / "examples/notebooks"
SPEC: Any = importlib.util.spec_from_file_location("build_notebooks", FOLDER / "build.py")
BUILD: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(BUILD)
# A small random model, few photos.
SMALL = {"story": 'weights, arch, side = None, "vit_tiny_patch16_224", 32\nphotos_per_product, iterations = 2, 2'}


@pytest.mark.parametrize("script", BUILD.scripts(), ids=lambda script: script.stem)
def test_the_notebook_is_that_of_its_script(script: Path):
    committed = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(committed)
    assert committed == BUILD.notebook(script), "stale: python examples/notebooks/build.py"
    assert not [cell for cell in committed.cells if cell.get("outputs")]


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own shows pictures
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    (parameters,) = (i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
    notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell(SMALL[name]))
    where = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "92 photos of 46 products" in printed
    # The query is in the index: found first, at no distance.
    (first,) = re.findall(r"added.*\n([\d.]+)", printed)
    assert float(first) < 1e-3
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) >= 2
