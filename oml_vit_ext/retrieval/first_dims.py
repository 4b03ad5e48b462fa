"""Search by the first dimensions of embeddings, for embeddings that were trained for it (``losses/matryoshka.py``).

Source: adaptive retrieval, Kusupati et al., Matryoshka Representation Learning, arXiv 2205.13147, section 4.3.
"""

from __future__ import annotations

import numpy as np

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.retrieval.engines import ExactEngine
from oml_vit_ext.retrieval.rows import Rows

_AT_ONCE = 65_536


class FirstDimsEngine:
    """Compares the first dimensions of every query with those of every row, and hands a shortlist to whoever orders it.

    Args:
        gallery: What is searched, ``(G, D)``.
        first_dims: How many dimensions, 1 to D. Their copy takes 4 bytes each and row.
        memory_mb: Bound for a block of gallery rows, in MB.

    Raises:
        ValueError: ``first_dims`` is out of range.
    """

    exact = False  # distances of the first dimensions are not those of the embeddings

    def __init__(self, gallery: Rows, first_dims: int, memory_mb: float) -> None:
        self.first_dims = check_whole("first_dims", first_dims, 1, gallery.dim, "the width of the embeddings")
        short = np.empty((len(gallery), first_dims), dtype=np.float32)
        for start, rows in gallery.blocks(_AT_ONCE):
            short[start : start + len(rows)] = first_of(rows, first_dims)
        self._engine = ExactEngine(Rows(short, name="first dimensions"), memory_mb)
        self._n_rows = len(short)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        """``(Q, D)`` -> squared distances of the first dimensions and positions, both ``(Q, min(k, G))``."""
        return self._engine.search(first_of(queries, self.first_dims), min(k, self._n_rows))


class Shortlist:
    """An engine that always answers with at least ``size`` rows, of which the nearest are picked afterwards."""

    exact = False

    def __init__(self, engine: FirstDimsEngine, size: int) -> None:
        self._engine = engine
        self._size = check_whole("shortlist", size, 1)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        return self._engine.search(queries, max(k, self._size))


def first_of(embeddings: Floats, n: int) -> Floats:
    """The first ``n`` dimensions of embeddings ``(B, D)``, each row with the length that the whole embedding has."""
    short = embeddings[:, :n].astype(np.float32)
    lengths = np.linalg.norm(short, axis=1, keepdims=True)
    whole = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.ascontiguousarray(short * (whole / np.maximum(lengths, np.finfo(np.float32).tiny)), dtype=np.float32)
