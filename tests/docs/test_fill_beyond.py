"""Tables of what goes beyond training are those of the results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.docs import script

FILL = script("fill_beyond")


@pytest.mark.parametrize("page", FILL.PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_results(page: Path):
    text = page.read_text()
    assert FILL.filled(text) == text, "stale: python docs/fill_beyond.py"


def test_each_table_stands_on_a_page():
    text = "".join(page.read_text() for page in FILL.PAGES)
    assert all(f"<!-- beyond: {table.__name__} -->" in text for table in FILL.TABLES)


def test_a_changed_figure_reaches_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = {"method": "none", "model": "irt_r", "settings": {}, "cmc10": 0.9, "map5": 0.8, "map20": 0.7, "seconds": 0.04}
    rows = [{**row, "seed": seed, "cmc1": cmc1} for seed, cmc1 in ((1, 0.5), (2, 0.6))]
    (tmp_path / "beyond.json").write_text(json.dumps(rows))
    monkeypatch.setattr(FILL, "RESULTS", tmp_path)
    new = FILL.filled("before\n<!-- beyond: trained -->\nold\n<!-- end -->\nafter\n")
    assert "| none |  | 0.550 ± 0.071 | 0.900 ± 0.000 |" in new and "old" not in new
    assert new.startswith("before\n") and new.endswith("after\n") and FILL.filled(new) == new
