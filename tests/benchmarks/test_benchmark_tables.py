"""Every config in the tables of ``docs/results/targets.md`` composes, and every number of the papers has one."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_module

from helpers import ROOT
from oml_vit_ext.datasets import DATASETS

TEXT = (ROOT / "docs/results/targets.md").read_text()
ROWS = re.findall(r"^\|.*\| `((?:irt|dtop|stir|revisited)/[^`]+)` \|$", TEXT, re.MULTILINE)


def test_the_tables_hold_the_papers_numbers():
    figures = [
        "52.8",
        "84.0/93.6/97.2/99.1",
        "91.1/98.1/98.6/99.0",
        "76.6/85.0/91.1/94.3",
        "55.1/28.3",
        "83.2/67.9",
        "95.0",
    ]
    assert len(ROWS) == 15 + 4 + 5 + 3 + 4 and all(f"| {figure} |" in TEXT for figure in figures)


@pytest.mark.parametrize("row", sorted(set(ROWS)))
def test_every_row_composes(row: str):
    name, *overrides = row.split()
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose(name, overrides)
    assert cfg.extractor.name in ("irt", "hybrid_vit", "extractor_with_pca", "vit")


def test_every_converter_is_listed():
    text = (ROOT / "docs/howto/data.md").read_text()
    assert all(f"| `{name}`" in text or f", `{name}` |" in text for name in DATASETS)
