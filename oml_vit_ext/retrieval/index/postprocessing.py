"""Postprocessors that compute with embeddings, on what one index finds, or several together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from torch import Tensor

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.retrieval.engines import Engine
from oml_vit_ext.retrieval.index.grid import rows_per_image
from oml_vit_ext.retrieval.index.image_index import Hit, ImageIndex
from oml_vit_ext.retrieval.retrieve import oml_results
from oml_vit_ext.retrieval.rows import Rows, StackedRows
from oml_vit_ext.retrieval.search_space import SearchesAgain, SearchSpace
from oml_vit_ext.retrieval.settings import Settings


def postprocessed(
    space: SearchSpace, n_items: int, postprocessor: SearchesAgain
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Distances and rows of each query, which counts alone: also where other queries would change its result."""
    if not postprocessor.independent and len(space.queries) > 1:
        alone = [space.with_queries(Rows(space.queries.block(q, q + 1))) for q in range(len(space.queries))]
        found = [postprocessed(of_one, n_items, postprocessor) for of_one in alone]
        return [d for distances, _ in found for d in distances], [r for _, rows in found for r in rows]
    results, _ = postprocessor.process_in(space, oml_results(*space.search(_first(n_items, postprocessor)), None))
    return results.distances, results.retrieved_ids


def postprocessed_hits(
    indexes: Sequence[ImageIndex], queries: Rows, k: int, settings: Settings, postprocessor: SearchesAgain
) -> list[list[Hit]]:
    """The ``k`` images that a postprocessor puts first for each query, of all indexes as if they were one.

    Args:
        indexes: Of one model.
        queries: ``(n, dim)``.
        k: Images per query.
        settings: How to search each index; so much memory for candidates, too.
        postprocessor: E.g. ``QueryExpansion``. What it keeps of the gallery goes at the end of the call.

    Raises:
        ValueError: An index is empty, ``settings`` do not go with it, or the postprocessor needs what it cannot give.
    """
    if getattr(postprocessor, "whole_gallery", True):
        for index in indexes:
            if not index.has_gallery:
                raise ValueError(
                    f"postprocessor is a {type(postprocessor).__name__} that compares the whole gallery, expected for "
                    f"a {type(index).__name__} one that needs what was found alone: QueryExpansion without "
                    f"database_side, KReciprocalReranker with top_n, or a chain of these."
                )
    n_rows = k * max(rows_per_image(index.grid) for index in indexes)
    n_first = _first(n_rows, postprocessor)
    at_once = max(1, int(settings.memory_mb * 1e6 / (8 * queries.dim * n_first)))
    kept: dict[Hashable, Any] = {}
    hits: list[list[Hit]] = []
    with ExitStack() as unchanged:
        for index in sorted(indexes, key=id):  # in one order, so that two searches never wait for each other
            unchanged.enter_context(index._reading())
        for _, block in queries.blocks(at_once):
            parts = [index._searchable(settings) for index in indexes]
            gallery = StackedRows([part.rows for part in parts])
            ends = np.cumsum([len(part.rows) for part in parts])
            engine = JoinedEngine([part.engine for part in parts], ends)
            found = postprocessed(SearchSpace(Rows(block), gallery, [], settings, engine, kept), n_rows, postprocessor)
            for distances, rows in zip(*found, strict=True):
                owners = np.searchsorted(ends, rows.numpy(), side="right")
                of_query: dict[tuple[int, int], Hit] = {}  # the first row of each image
                for owner, row, distance in zip(owners.tolist(), rows.tolist(), distances.tolist(), strict=True):
                    row -= int(ends[owner - 1]) if owner else 0
                    image = owner, row // rows_per_image(indexes[owner].grid)
                    if image not in of_query:
                        hit = parts[owner].hit(row, distance)
                        of_query[image] = hit.seen_from(indexes[0].root, indexes[owner].root)
                hits.append(list(of_query.values())[:k])
    return hits


class JoinedEngine:
    """Finds rows of several galleries, one below the other, by the engine of each.

    Args:
        engines: Of each gallery.
        ends: Position after the last row of each.
    """

    def __init__(self, engines: Sequence[Engine], ends: Ids) -> None:
        self.exact = all(engine.exact for engine in engines)
        self._engines, self._lengths, self._starts = engines, np.diff(ends, prepend=0), ends - np.diff(ends, prepend=0)

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        """As each of the engines: ascending squared distances and positions, -1 where none was found."""
        distances, ids = [], []
        for engine, length, start in zip(self._engines, self._lengths, self._starts, strict=True):
            squared, found = engine.search(queries, min(k, int(length)))
            distances.append(np.where(found < 0, np.float32(np.inf), squared))
            ids.append(np.where(found < 0, -1, found + start))
        order = np.argsort(np.concatenate(distances, axis=1), axis=1, kind="stable")[:, :k]
        squared = np.take_along_axis(np.concatenate(distances, axis=1), order, axis=1)
        return squared, np.take_along_axis(np.concatenate(ids, axis=1), order, axis=1)


def _first(n_rows: int, postprocessor: SearchesAgain) -> int:
    """So many rows per query are retrieved for the postprocessor."""
    return max(n_rows, getattr(postprocessor, "top_n", 0))
