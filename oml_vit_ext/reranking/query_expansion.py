"""Query expansion: a query is searched again as the weighted mean of itself and what it has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.reranking.embedding_postprocessor import EmbeddingPostprocessor

if TYPE_CHECKING:
    from oml_vit_ext.retrieval.rows import Rows
    from oml_vit_ext.retrieval.search_space import SearchSpace


class QueryExpansion(EmbeddingPostprocessor):
    r"""αQE (Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2018, arXiv 1711.02512).

    The query q becomes :math:`q + \sum_{i=1}^{n} \max(0, \cos(q, x_i))^\alpha x_i` over its first n results, scaled to
    the length that it had, and is searched again. ``alpha=0`` is the average of Chum et al. (ICCV 2007).

    What OML leaves out, the query itself and its sequence, is left out here too: of the results, and of the sum.

    Args:
        n: First results that are added to a query, at least 1. Queries with fewer take those that they have.
        alpha: Exponent of the cosine similarity, 0 or more: the larger, the less do distant results count.
        database_side: First expand each gallery image in the same way, by what it would find in the gallery itself.
        memory_mb: Bound for temporary memory, in MB (1e6 bytes), beyond the new embeddings.
        verbose: Show progress.

    Raises:
        ValueError: ``n``, ``alpha`` or ``memory_mb`` is out of range.
    """

    def __init__(
        self,
        n: int = 5,
        alpha: float = 3.0,
        database_side: bool = False,
        *,
        memory_mb: float = 256.0,
        verbose: bool = False,
    ) -> None:
        super().__init__(memory_mb, verbose)
        self.n = check_whole("n", n, 1, why="with none there is nothing to expand by")
        self.alpha = check_number("alpha", alpha, 0)
        self.database_side = self.whole_gallery = database_side

    @property
    def top_n(self) -> int:
        return self.n

    def process_in(self, space: SearchSpace, rr: RetrievalResults) -> tuple[RetrievalResults, SearchSpace]:
        from oml_vit_ext.retrieval.retrieve import oml_results

        found: Sequence[Tensor] = rr.retrieved_ids
        if self.database_side:
            space = self._with_expanded_gallery(space)
            _, found = space.search(self.n)
        space = space.with_queries(self._expanded(space.queries, space.gallery, found, "query embeddings"))
        distances, ids = space.search(rr.n_retrieved_items)
        lengths = [len(of_query) for of_query in rr.retrieved_ids]  # a threshold before may have shortened some
        distances = [d[:n] for d, n in zip(distances, lengths, strict=True)]
        ids = [i[:n] for i, n in zip(ids, lengths, strict=True)]
        return oml_results(distances, ids, rr.gt_ids), space

    def _with_expanded_gallery(self, space: SearchSpace) -> SearchSpace:
        from oml_vit_ext.retrieval.engines import make_engine
        from oml_vit_ext.retrieval.nearest import Grouping, nearest

        key = ("expanded gallery", self.n, self.alpha)
        if key not in space.kept:
            gallery = space.gallery
            itself = np.arange(len(gallery))
            ignored = [Grouping(itself, itself), *(Grouping(g.gallery, g.gallery) for g in space.ignored)]
            engine = space.engine or make_engine(gallery, space.settings)
            _, found = nearest(gallery, gallery, engine, self.n, ignored, space.settings)
            space.kept[key] = self._expanded(gallery, gallery, found, "gallery embeddings")
        return space.with_gallery(space.kept[key])

    def _expanded(self, rows: Rows, gallery: Rows, found: Sequence[Tensor], name: str) -> Rows:
        """All ``rows``, each expanded by its first n of ``found``."""
        from oml_vit_ext.retrieval.rows import Rows

        expanded = np.empty((len(rows), rows.dim), dtype=np.float32)
        n = max(1, min(self.n, max(map(len, found), default=0)))
        at_once = max(1, int(self.memory_mb * 1e6 / (12 * rows.dim * (n + 1))))
        for start in range(0, len(rows), at_once):
            stop = min(start + at_once, len(rows))
            ids, is_there = _padded(found[start:stop], n)
            neighbours = gallery.take(ids.reshape(-1)).reshape(*ids.shape, rows.dim)
            expanded[start:stop] = expand(rows.block(start, stop), neighbours, self.alpha, is_there)
        return Rows(expanded, name=f"expanded {name}")


def expand(queries: Floats, neighbours: Floats, alpha: float, is_there: NDArray[np.bool_] | None = None) -> Floats:
    """αQE of a batch.

    Args:
        queries: ``(B, dim)``, none of them all zeros.
        neighbours: ``(B, n, dim)``.
        alpha: Exponent of the cosine similarity.
        is_there: ``(B, n)``: which of the neighbours count; ``None``: all.

    Returns:
        ``(B, dim)``, each as long as its query. Neighbours at a right angle or beyond add nothing, whatever ``alpha``.

    >>> expand(np.array([[1.0, 0.0]]), np.array([[[0.6, 0.8], [-1.0, 0.0]]]), alpha=1.0).round(3).tolist()
    [[0.943, 0.333]]
    """
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    cosines = np.einsum("bd,bnd->bn", queries, neighbours) / (lengths * np.linalg.norm(neighbours, axis=2))
    counts = cosines > 0 if is_there is None else (cosines > 0) & is_there
    weights = np.where(counts, cosines.clip(0, 1) ** alpha, 0)  # rounded above 1, a large power is infinite
    summed = queries + np.einsum("bn,bnd->bd", weights, neighbours)
    expanded: Floats = summed * (lengths / np.linalg.norm(summed, axis=1, keepdims=True))
    return expanded


def _padded(found: Sequence[Tensor], n: int) -> tuple[Ids, NDArray[np.bool_]]:
    """The first n of each list ``(B, n)``, filled up with row 0, and which of them are no filling."""
    firsts = [ids[:n].cpu().numpy() for ids in found]
    lengths = np.array([len(ids) for ids in firsts])
    padded = np.zeros((len(firsts), n), dtype=np.int64)
    is_there = np.arange(n) < lengths[:, None]
    padded[is_there] = np.concatenate(firsts) if len(firsts) else 0
    return padded, is_there
