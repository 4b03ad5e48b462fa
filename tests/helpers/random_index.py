"""Indexes of random embeddings, without a model or images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from oml_vit_ext.retrieval import ImageIndex, SearchIndex
from oml_vit_ext.retrieval.index import Fingerprint

DIM = 8


def random_index(root: Path, factory: str = "Flat", n: int = 40) -> SearchIndex:
    """``n`` images that need not exist."""
    fingerprint = Fingerprint("Model", "0" * 32, "transforms", tuple(np.linspace(0.1, 1, DIM).tolist()))
    index = SearchIndex(root, fingerprint, factory)
    if n:
        add_random(index, n)
    return index


def add_random(index: SearchIndex, n: int) -> None:
    """``n`` more; image i has :func:`random_rows`' row i."""
    add_numbers(index, np.arange(len(index), len(index) + n))


def add_numbers(index: ImageIndex, numbers: np.ndarray) -> None:
    """Images with these numbers, of any index."""
    names = [f"{i:06d}.png" for i in numbers]
    index.add_embeddings(pd.DataFrame({"path": names}), random_rows(numbers), index.fingerprint)


def random_rows(numbers: np.ndarray) -> np.ndarray:
    """``(n, DIM)``, each row a function of its number alone."""
    rows = np.stack([np.random.default_rng(int(i)).standard_normal(DIM) for i in numbers])
    return rows.astype(np.float32)
