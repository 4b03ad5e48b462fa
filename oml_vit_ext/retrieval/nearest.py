"""Nearest neighbours with OML's rules: the same item and the same sequence are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import LongTensor, Tensor

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.progress import progress
from oml_vit_ext.retrieval.engines import Engine
from oml_vit_ext.retrieval.rows import Rows
from oml_vit_ext.retrieval.settings import Settings

# Expanding |q - x|² = |q|² + |x|² - 2qx in float32 is off by some 1e-6 |q|²: below this share of |q|², the distance is
# computed again from the difference. Beyond it the error of the distance is under 1e-5 |q|.
_CLOSE = 0.02
_QUERIES_AT_ONCE = 8_192

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Grouping:
    """One integer per query and per gallery item; pairs with the same one belong together."""

    queries: Codes  # (Q,)
    gallery: Codes  # (G,)


def nearest(
    queries: Rows,
    gallery: Rows,
    engine: Engine,
    n_items: int,
    ignored: list[Grouping],
    settings: Settings,
) -> tuple[list[Tensor], list[Tensor]]:
    """For each query up to ``n_items`` gallery items, nearest first, those of its own ``ignored`` groups left out.

    Of items at the same distance, the earlier one in the gallery comes first. Where not all of them are among the
    ``n_items``, those that are come from the engine.

    Distances are computed in float32 from the differences where the expanded formula loses digits, and always for an
    engine that is not exact; the found items are ordered by them. Half of the memory is for what is made here, the
    other half is the engine's.

    Returns:
        Per query the distances (float32) and the gallery positions (int64), of equal length. The length is
        ``n_items`` unless the gallery has fewer items for this query, or an approximate index finds fewer.
    """
    n_items = min(n_items, len(gallery))
    distances = np.empty((len(queries), n_items), dtype=np.float32)
    ids = np.empty((len(queries), n_items), dtype=np.int64)
    counts = np.empty(len(queries), dtype=np.int64)
    with progress(
        total=len(queries), desc="Finding nearest neighbours", unit=" queries", verbose=settings.verbose
    ) as bar:
        for chunk, k in _chunks(len(queries), len(gallery), queries.dim, n_items, ignored, settings.memory_mb / 2):
            q = queries.take(chunk)
            squared, found = engine.search(q, k)
            left_out = found < 0
            for group in ignored:
                left_out |= group.gallery[found] == group.queries[chunk, None]
            found_distances = _distances(q, gallery, squared, found, all_again=not engine.exact)
            distances[chunk], ids[chunk] = _first_of_the_rest(found_distances, found, left_out, n_items)
            counts[chunk] = np.minimum((~left_out).sum(axis=1), n_items)
            bar.update(len(chunk))
    return split_rows(distances, counts), split_rows(ids, counts)


def ground_truth(labels: Grouping, ignored: list[Grouping]) -> list[LongTensor]:
    """For each query the ascending positions of the gallery items with its label, the ``ignored`` ones left out."""
    found: list[LongTensor] = []
    for start in range(0, len(labels.queries), _QUERIES_AT_ONCE):
        rows = slice(start, start + _QUERIES_AT_ONCE)
        positions, sizes = gather_groups(labels.queries[rows], labels.gallery)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        keep = np.ones(len(positions), dtype=bool)
        for group in ignored:
            keep &= group.gallery[positions] != group.queries[rows][owner]
        kept = np.bincount(owner[keep], minlength=len(sizes))
        found.extend(torch.from_numpy(positions[keep]).split(kept.tolist()))
    return found


def _chunks(
    n_queries: int, n_gallery: int, dim: int, n_items: int, ignored: list[Grouping], memory_mb: float
) -> Iterator[tuple[Ids, int]]:
    """Queries to be searched together, and how many items to ask for so that enough remain.

    A query may have as many items to leave out as its groups hold. Few queries of long sequences must not make the
    search of all others wide, so queries are put together by that number, rounded up to a power of two.

    Returns:
        Positions of queries, and how many items to ask for.
    """
    to_leave_out = np.zeros(n_queries, dtype=np.int64)
    for group in ignored:
        to_leave_out += group_sizes(group.queries, group.gallery)
    rounded = np.where(to_leave_out > 0, 2 ** np.ceil(np.log2(np.maximum(to_leave_out, 1))), 0).astype(np.int64)
    for extra in np.unique(rounded):
        members = np.flatnonzero(rounded == extra)
        k = int(min(n_items + extra, n_gallery))
        # A query row, faiss's reservoir of up to 2 k candidates, and some ten arrays of k numbers.
        at_once = int(np.clip(memory_mb * 1e6 / (4 * dim + 100 * k), 64, _QUERIES_AT_ONCE))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once], k


def _first_of_the_rest(distances: Floats, found: Ids, left_out: NDArray[np.bool_], n: int) -> tuple[Floats, Ids]:
    """The ``n`` nearest of each row that are not left out, then what is left out, at infinity.

    Few rows are out of order, those in which a distance was computed again or several are equal; only these are sorted.
    For the others it is enough to move what is left out to the end, which takes a tenth of the time.
    """
    distances[left_out] = np.inf
    order = np.argsort(left_out, axis=1, kind="stable")
    ordered = np.take_along_axis(distances, order, axis=1)
    positions = np.take_along_axis(found, order, axis=1)
    equal = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] < np.inf)
    wrong = (ordered[:, 1:] < ordered[:, :-1]) | (equal & (positions[:, 1:] < positions[:, :-1]))
    unsorted = np.flatnonzero(wrong.any(axis=1))
    if len(unsorted):
        order[unsorted] = np.lexsort((found[unsorted], distances[unsorted]), axis=1)
        ordered[unsorted] = np.take_along_axis(distances[unsorted], order[unsorted], axis=1)
    return ordered[:, :n], np.take_along_axis(found, order[:, :n], axis=1)


def _distances(queries: Floats, gallery: Rows, squared: Floats, found: Ids, *, all_again: bool) -> Floats:
    """Distances ``(Q, k)`` of the found items; those that need it computed from the differences."""
    again = found >= 0
    if not all_again:
        again &= squared < _CLOSE * np.einsum("qd,qd->q", queries, queries)[:, None]
    rows, columns = np.nonzero(again)
    block = max(1, 8_000_000 // queries.shape[1])  # 32 MB of gallery rows
    for start in range(0, len(rows), block):
        r, c = rows[start : start + block], columns[start : start + block]
        difference = gallery.take(found[r, c])
        np.subtract(queries[r], difference, out=difference)
        squared[r, c] = np.einsum("nd,nd->n", difference, difference)
    return np.sqrt(np.maximum(squared, 0, out=squared), out=squared)


def group_sizes(wanted: Codes, codes: Codes) -> Codes:
    """For each of ``wanted``, how often it occurs in ``codes``."""
    ordered = np.sort(codes)
    return np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left")


def gather_groups(wanted: Codes, codes: Codes) -> tuple[Codes, Codes]:
    """The ascending positions of each of ``wanted`` in ``codes``, one list after the other, and the lists' lengths."""
    by_code = np.argsort(codes, kind="stable")
    ordered = codes[by_code]
    starts = np.searchsorted(ordered, wanted, side="left")
    sizes = np.searchsorted(ordered, wanted, side="right") - starts
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return by_code[np.repeat(starts, sizes) + within], sizes


def split_rows(matrix: NDArray[Any], counts: Codes) -> list[Tensor]:
    """The first ``counts[i]`` entries of each row ``i``, as tensors that share the matrix's memory."""
    if (counts == matrix.shape[1]).all():
        return list(torch.from_numpy(matrix).unbind(0))
    flat = matrix[np.arange(matrix.shape[1]) < counts[:, None]]
    return list(torch.from_numpy(flat).split(counts.tolist()))
