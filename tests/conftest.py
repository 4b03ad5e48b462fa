"""Shared by all tests: one thread for torch, the bundled pictures, small random models."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import pytest
import torch

import oml_vit_ext

ROOT = Path(__file__).parent.parent
DEMO_DATA = ROOT / "examples" / "demo_data"

torch.set_num_threads(1)

# A hybrid with a convolutional stem and a plain transformer, both small enough for one core.
TINY_PLAIN = {"arch": "vit_tiny_patch16_224", "timm_args": {"img_size": 32, "patch_size": 8, "depth": 2}}
TINY_HYBRID = {"arch": "vit_tiny_r_s16_p8_224", "timm_args": {"img_size": 48, "patch_size": 2, "depth": 2}}


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
    """The current folder is a temporary one: the host's pipelines write where they stand."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


__all__ = ["DEMO_DATA", "ROOT", "TINY_HYBRID", "TINY_PLAIN", "oml_vit_ext"]
