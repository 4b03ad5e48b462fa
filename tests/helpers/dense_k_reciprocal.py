"""k-reciprocal re-ranking as its authors wrote it: dense matrices, a loop over images. Float64 in place of float16."""

from __future__ import annotations

import numpy as np


def k_reciprocal_distances(queries: np.ndarray, gallery: np.ndarray, k1: int, k2: int, lambda_value: float):
    """``(Q, dim)``, ``(G, dim)`` -> the final distances ``(Q, G)`` of ``re_ranking_feature.py``."""
    features = np.concatenate([queries, gallery]).astype(np.float64)
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    return from_squared(squared, len(queries), k1, k2, lambda_value)[:, len(queries) :]


def from_squared(squared: np.ndarray, n_queries: int, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """``(N, N)`` squared distances of all -> final distances ``(n_queries, N)``."""
    n = len(squared)
    original = np.transpose(squared / squared.max(axis=0))
    rank = np.argsort(original, axis=1, kind="stable")
    v = np.zeros((n, n))

    def reciprocal_neighbours(i: int, k: int) -> np.ndarray:
        forward = rank[i, : k + 1]
        backward = rank[forward, : k + 1]
        return forward[np.where(backward == i)[0]]

    for i in range(n):
        near = reciprocal_neighbours(i, k1)
        expanded = near
        for candidate in near:
            half = reciprocal_neighbours(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(half, near)) > 2 / 3 * len(half):
                expanded = np.append(expanded, half)
        expanded = np.unique(expanded)
        weight = np.exp(-original[i, expanded])
        v[i, expanded] = weight / weight.sum()
    if k2 != 1:
        v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)])
    jaccard = np.zeros((n_queries, n))
    for i in range(n_queries):
        smaller = np.minimum(v[i], v).sum(axis=1)
        jaccard[i] = 1 - smaller / (2 - smaller)
    return jaccard * (1 - lambda_value) + original[:n_queries] * lambda_value
