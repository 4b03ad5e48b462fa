"""The table of docs/scale.md is that of its result file."""

from __future__ import annotations

import json

from helpers import ROOT


def test_the_table_is_that_of_the_results():
    rates = json.loads((ROOT / "docs/results/scale.json").read_text())["images_per_second"]
    page = (ROOT / "docs/scale.md").read_text()
    for name, rate in rates.items():
        assert f"| {name} | {rate:.1f} | {rate / rates['Ray, 1 worker']:.2f} |" in page
