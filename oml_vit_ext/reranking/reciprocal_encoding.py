"""The k-reciprocal encoding of Zhong et al. (CVPR 2017, arXiv 1701.08398), sparse, as functions of neighbour lists.

The equations' numbers are the paper's; where the paper leaves room, this is what the authors' code does
(``re_ranking_feature.py`` of zhunzhong07/person-re-ranking), in float32 instead of its float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.retrieval.engines import make_engine
from oml_vit_ext.retrieval.nearest import nearest
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import Settings

Sparse = Any  # scipy's matrices have no types


def neighbour_lists(pool: Rows, k: int, settings: Settings) -> Ids:
    """Per row of the pool itself, then its ``k`` nearest others: ``(P, min(k + 1, P))``.

    The row itself stays first, and in the list, also where others are at distance 0.
    """
    size = min(k + 1, len(pool))
    _, found = nearest(pool, pool, make_engine(pool, settings), size, [], settings)
    lists = torch.stack(found).numpy()
    itself = np.arange(len(pool))
    position = np.where((lists == itself[:, None]).any(axis=1), (lists == itself[:, None]).argmax(axis=1), size - 1)
    for row in np.flatnonzero(position > 0):
        lists[row, 1 : position[row] + 1] = lists[row, : position[row]].copy()
    lists[:, 0] = itself
    return lists


def reciprocal(lists: Ids) -> Sparse:
    """R(p, k), eq. 3: ``(P, P)`` with a one for each pair of which both are in the list of the other. Symmetric."""
    n, k = lists.shape
    forward = sparse.csr_matrix((np.ones(n * k, np.int32), lists.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
    return forward.multiply(forward.T).tocsr()


def with_common_neighbours(near: Sparse, half: Sparse, start: int, stop: int) -> Sparse:
    """R*(p, k), eq. 4, of the rows from ``start`` to ``stop``.

    To each R(p, k) those R(c, k/2) of its members c are added of which more than two thirds are in it.

    Args:
        near: R(p, k) of all rows.
        half: R(p, k/2) of all rows.
    """
    block = near[start:stop]
    common = (block @ half).multiply(block).tocsr()  # |R(p, k) ∩ R(c, k/2)| for each member c
    is_added = 3 * common.data > 2 * half.getnnz(axis=1)[common.indices]
    added = sparse.csr_matrix((is_added.astype(np.int32), common.indices, common.indptr), shape=common.shape)
    added.eliminate_zeros()
    together = (block + added @ half).tocsr()
    together.data[:] = 1
    together.sort_indices()
    return together


def encode(pool: Rows, k1: int, k2: int, settings: Settings) -> tuple[Sparse, Floats]:
    """V, eqs. 7 and 11: ``(P, P)`` sparse, rows that sum to 1; and ``(P,)`` each row's largest squared distance.

    Args:
        pool: ``(P, dim)``.
        k1: Neighbours whose reciprocity counts.
        k2: Nearest rows, itself included, over which encodings are averaged: local query expansion; 1 for none.
        settings: How much memory, and whether with a progress bar.
    """
    lists = neighbour_lists(pool, max(k1, k2 - 1), settings)
    near = reciprocal(lists[:, : k1 + 1])
    half = reciprocal(lists[:, : int(np.around(k1 / 2)) + 1])
    largest = largest_squared_distances(pool, settings.memory_mb)
    at_once = max(
        1, int(settings.memory_mb * 1e6 / (64 * (k1 + 1) ** 2))
    )  # as many entries as there can be, and copies
    blocks = []
    for start in range(0, len(pool), at_once):
        stop = min(start + at_once, len(pool))
        members = with_common_neighbours(near, half, start, stop)
        rows = np.repeat(np.arange(start, stop), np.diff(members.indptr))
        squared = squared_distances(pool, rows, pool, members.indices, settings.memory_mb)
        weights = np.exp(-relative(squared, largest[rows]))
        sums = np.bincount(rows - start, weights, minlength=stop - start)
        members = sparse.csr_matrix(
            ((weights / sums[rows - start]).astype(np.float32), members.indices, members.indptr), shape=members.shape
        )
        blocks.append(members)
    encoded = sparse.vstack(blocks, format="csr")
    if k2 > 1:
        mean = np.full(lists[:, :k2].size, 1 / lists[:, :k2].shape[1], dtype=np.float32)
        steps = np.arange(0, mean.size + 1, lists[:, :k2].shape[1])
        encoded = (sparse.csr_matrix((mean, lists[:, :k2].ravel(), steps), shape=encoded.shape) @ encoded).tocsr()
    return encoded, largest


def shared_weights(queries: Sparse, gallery_columns: Sparse, memory_mb: float) -> Any:
    """Σ min(V_p, V_g), eq. 10, of all pairs that share something, a block of queries at a time.

    Args:
        queries: ``(Q, P)`` by rows.
        gallery_columns: ``(G, P)`` by columns.
        memory_mb: Bound for one block.

    Yields:
        The first query of a block, and ``(queries in it, G)`` sparse by rows.
    """
    lengths = np.diff(gallery_columns.indptr)
    pairs = np.concatenate([[0], np.cumsum(lengths[queries.indices])])[queries.indptr]  # before each query
    at_once = max(1, int(memory_mb * 1e6 / 64))  # pairs
    start = 0
    while start < queries.shape[0]:
        stop = max(start + 1, int(np.searchsorted(pairs, pairs[start] + at_once, side="right")) - 1)
        block = queries[start:stop]
        sizes = lengths[block.indices]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        at = np.repeat(gallery_columns.indptr[block.indices], sizes) + within
        rows = np.repeat(np.repeat(np.arange(stop - start), np.diff(block.indptr)), sizes)
        smaller = np.minimum(np.repeat(block.data, sizes), gallery_columns.data[at])
        shape = (stop - start, gallery_columns.shape[0])
        yield start, sparse.coo_matrix((smaller, (rows, gallery_columns.indices[at])), shape=shape).tocsr()
        start = stop


def jaccard_distances(shared: Floats) -> Floats:
    """1 - Σ min / Σ max, eq. 10, of rows that sum to 1."""
    return np.maximum(1 - shared / (2 - shared), 0)


def relative(squared: Floats, largest: Floats) -> Floats:
    """Squared distances as shares of the row's largest, the authors' original distance; 0 where all rows are equal."""
    return np.divide(squared, largest, out=np.zeros_like(squared), where=largest > 0)


def squared_distances(a: Rows, of_a: Ids, b: Rows, of_b: Ids, memory_mb: float) -> Floats:
    """``(n,)``: between row ``of_a[i]`` of ``a`` and row ``of_b[i]`` of ``b``."""
    found = np.empty(len(of_a), dtype=np.float32)
    at_once = max(1, int(memory_mb * 1e6 / (16 * a.dim)))
    for start in range(0, len(of_a), at_once):
        part = slice(start, start + at_once)
        difference = a.take(of_a[part]) - b.take(of_b[part])
        found[part] = np.einsum("nd,nd->n", difference, difference)
    return found


def largest_squared_distances(pool: Rows, memory_mb: float) -> Floats:
    """``(P,)``: from each row to the one that is farthest from it."""
    side = max(64, int(min(np.sqrt(memory_mb * 1e6 / 16), memory_mb * 1e6 / (16 * pool.dim))))
    largest = np.zeros(len(pool), dtype=np.float32)
    for start, rows in pool.blocks(side):
        lengths = np.einsum("nd,nd->n", rows, rows)
        farthest = np.zeros(len(rows), dtype=np.float32)
        for _, others in pool.blocks(side):
            products = rows @ others.T
            products *= -2
            products += np.einsum("nd,nd->n", others, others)
            np.maximum(farthest, products.max(axis=1) + lengths, out=farthest)
        largest[start : start + len(rows)] = farthest
    return largest
