"""Tables of the pages are those of the data files."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import ROOT
from helpers.docs import script

FILL = script("fill_tables")
DOCS = ROOT / "docs"
WITH_TABLES = [page for page in sorted(DOCS.rglob("*.md")) if "<!-- table: " in page.read_text()]


def test_the_results_pages_have_their_data_in_files():
    assert {page.name for page in WITH_TABLES} >= {"targets.md", "experiments.md", "speed.md", "zoo.md"}
    used = {name for page in WITH_TABLES for name in FILL._BLOCK.findall(page.read_text())}
    files = {Path(file).name for _, file, _, _ in used}
    assert {file.name for file in (DOCS / "results/data").glob("*.csv")} <= files, "data of no table"


@pytest.mark.parametrize("page", WITH_TABLES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_data(page: Path):
    text = page.read_text()
    assert FILL.filled(text, page.parent) == text, "stale: python docs/fill_tables.py"


def test_a_changed_figure_reaches_the_page(tmp_path: Path):
    (tmp_path / "x.csv").write_text('name,CMC@1\n"a, b",0.5\n,0.7\n')
    page = "before\n<!-- table: x.csv -->\nold\n<!-- end of table -->\nafter\n"
    new = FILL.filled(page, tmp_path)
    assert "| name | CMC@1 |\n|---|---|\n| a, b | 0.5 |\n| | 0.7 |\n" in new and "old" not in new
    assert new.startswith("before\n") and new.endswith("after\n")
    assert FILL.filled(new, tmp_path) == new
