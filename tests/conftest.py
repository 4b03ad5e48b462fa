"""Shared by all tests: one thread for torch, a part of the bundled pictures."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import pytest
import torch

import oml_vit_ext  # noqa: F401  (registers)
from helpers import DEMO_DATA

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def demo_slice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set folder with a few emoji of the demo data: 12 to train, 8 to validate, pictures linked."""
    root = tmp_path_factory.mktemp("demo_slice")
    df = pd.read_csv(DEMO_DATA / "df.csv")
    keep = [
        label
        for split, n in (("train", 12), ("validation", 8))
        for label in df[df.split == split].label.drop_duplicates().head(n)
    ]
    df[df.label.isin(keep)].to_csv(root / "df.csv", index=False)
    (root / "images").symlink_to(DEMO_DATA / "images")
    return root


@pytest.fixture()
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a temporary one: the pipelines of OML write where they stand."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
