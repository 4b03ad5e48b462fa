"""Hard negatives of one anchor in the plainest possible way."""

from __future__ import annotations

import numpy as np


def embeddings(n: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Random rows of length 1, ``(n, dim)``."""
    rows = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plainly(anchor: np.ndarray, label: int, candidates: np.ndarray, labels: np.ndarray, n: int) -> list[int]:
    """The ``n`` candidates most similar to the anchor, of other labels than its own and of each label one."""
    chosen: list[int] = []
    for position in np.argsort(-(candidates @ anchor), kind="stable"):
        if labels[position] != label and labels[position] not in labels[chosen]:
            chosen.append(int(position))
        if len(chosen) == n:
            break
    return chosen
