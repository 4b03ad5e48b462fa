"""k-reciprocal re-ranking: two images that are in each other's neighbourhoods belong together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.progress import progress
from oml_vit_ext.reranking.embedding_postprocessor import EmbeddingPostprocessor
from oml_vit_ext.reranking.reranker import merge_distances

if TYPE_CHECKING:
    from oml_vit_ext.retrieval.rows import Rows
    from oml_vit_ext.retrieval.search_space import SearchSpace


class KReciprocalReranker(EmbeddingPostprocessor):
    """Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017 (arXiv 1701.08398).

    A candidate's new distance is ``(1 - λ) · Jaccard distance of the k-reciprocal neighbourhoods + λ · d² / max d²``
    (eq. 12), from 0 to 1. All queries and all gallery images are the pool in which neighbourhoods are looked at, as in
    the paper; an image that is both is in it once. The first items of the whole gallery by the new distance are
    returned, also ones that were not retrieved before; what OML leaves out, the query itself and its sequence, is in
    the pool but not in the results. No matrix of gallery × gallery is made: per image some hundred numbers are kept.

    With ``top_n``, a query's first ``top_n`` candidates and the query itself are the pool, and only they change places.
    That costs the same for every size of the gallery, and does not depend on the other queries.

    Args:
        k1: Neighbours whose reciprocity counts, at least 1. A smaller pool has smaller neighbourhoods.
        k2: Encodings of so many nearest images are averaged, at least 1 (none).
        lambda_value: λ, the share of the first stage's distance, from 0 to 1.
        top_n: ``None``: the paper's pool; or so many first candidates of each query, at least 2.
        memory_mb: Bound for temporary memory, in MB (1e6 bytes), beyond embeddings and encodings.
        verbose: Show progress.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
        top_n: int | None = None,
        *,
        memory_mb: float = 256.0,
        verbose: bool = False,
    ) -> None:
        super().__init__(memory_mb, verbose)
        self.k1 = check_whole("k1", k1, 1, why="neighbours")
        self.k2 = check_whole("k2", k2, 1, why="1 averages nothing")
        self.lambda_value = check_number("lambda_value", lambda_value, 0, 1)
        self.n_compared = None if top_n is None else check_whole("top_n", top_n, 2, why="or None for the whole pool")
        self.independent = top_n is not None
        self.whole_gallery = top_n is None

    @property
    def top_n(self) -> int:
        return self.n_compared or 1

    def process_in(self, space: SearchSpace, rr: RetrievalResults) -> tuple[RetrievalResults, SearchSpace]:
        from oml_vit_ext.retrieval.retrieve import oml_results

        if self.n_compared is None:
            distances, ids = self._in_the_whole_pool(space, rr.n_retrieved_items)
            lengths = [len(of_query) for of_query in rr.retrieved_ids]
            distances = [d[:n] for d, n in zip(distances, lengths, strict=True)]
            ids = [i[:n] for i, n in zip(ids, lengths, strict=True)]
        else:
            distances, ids = self._among_the_first(space, rr, self.n_compared)
        return oml_results(distances, ids, rr.gt_ids), space

    def _in_the_whole_pool(self, space: SearchSpace, n_items: int) -> tuple[list[Tensor], list[Tensor]]:
        from oml_vit_ext.reranking.reciprocal_encoding import encode, shared_weights

        pool, of_queries = pool_of(space)
        n_gallery = len(space.gallery)
        first_distances, first_ids = space.search(n_items)
        encoded, largest = encode(pool, self.k1, self.k2, self.settings)
        in_gallery = encoded[:n_gallery].tocsc()
        distances, ids = [], []
        bar = progress(total=len(of_queries), desc="k-reciprocal re-ranking", verbose=self.verbose)
        with bar:
            for start, shared in shared_weights(encoded[of_queries], in_gallery, self.memory_mb):
                queries = np.arange(start, start + shared.shape[0])
                ends = np.cumsum([0, *(len(first_ids[q]) for q in queries)])
                found = np.repeat(queries - start, np.diff(ends)) * n_gallery
                found += torch.cat([first_ids[q] for q in queries]).numpy()
                squared: Floats = np.square(torch.cat([first_distances[q] for q in queries]).numpy())
                keys, final = self._final(space, start, shared, found, squared, largest[of_queries])
                for q, (mine, new) in zip(queries, _per_query(keys, final, n_gallery, len(queries)), strict=True):
                    n = len(first_ids[q])
                    distances.append(torch.from_numpy(new[:n]))
                    ids.append(torch.from_numpy(mine[:n]))
                bar.update(len(queries))
        return distances, ids

    def _final(
        self, space: SearchSpace, start: int, shared: object, found: Ids, squared: Floats, largest: Floats
    ) -> tuple[Ids, Floats]:
        """New distances of all candidates that can be among the first: those that the first stage found, and those
        whose neighbourhood shares something. All others have the Jaccard distance 1 and are farther than the former.

        Returns:
            Query (from ``start``) × gallery size + gallery position, ascending within a query by the new distance.
        """
        from oml_vit_ext.reranking.reciprocal_encoding import jaccard_distances, relative, squared_distances

        n_gallery = len(space.gallery)
        pairs = shared.tocoo()  # type: ignore[attr-defined]
        sharing = pairs.row.astype(np.int64) * n_gallery + pairs.col
        may_be_found = np.ones(len(sharing), dtype=bool)
        for group in space.ignored:
            may_be_found &= group.queries[start + pairs.row] != group.gallery[pairs.col]
        keys = np.union1d(found, sharing[may_be_found])
        weight, distance = np.zeros(len(keys), np.float32), np.full(len(keys), np.nan, np.float32)
        weight[np.searchsorted(keys, sharing[may_be_found])] = pairs.data[may_be_found]
        distance[np.searchsorted(keys, found)] = squared
        is_new = np.flatnonzero(np.isnan(distance))
        of_query, of_gallery = start + keys // n_gallery, keys % n_gallery
        distance[is_new] = squared_distances(
            space.queries, of_query[is_new], space.gallery, of_gallery[is_new], self.memory_mb
        )
        far = relative(distance, largest[of_query])
        final = self._mixed(jaccard_distances(weight), far)
        order = np.lexsort((of_gallery, distance, final, of_query))
        return keys[order], final[order]

    def _among_the_first(
        self, space: SearchSpace, rr: RetrievalResults, n_compared: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        from oml_vit_ext.reranking.reciprocal_encoding import (
            encode,
            jaccard_distances,
            relative,
            shared_weights,
            squared_distances,
        )
        from oml_vit_ext.retrieval.rows import Rows

        distances: list[Tensor] = []
        ids: list[Tensor] = []
        bar = progress(rr.distances, desc="k-reciprocal re-ranking", verbose=self.verbose)
        for q, (of_first_stage, found) in enumerate(zip(bar, rr.retrieved_ids, strict=True)):
            old, retrieved = of_first_stage.float().cpu(), found.cpu()
            first = retrieved[:n_compared]
            if len(first) < 2:
                distances.append(old)
                ids.append(retrieved)
                continue
            rows = np.concatenate([space.queries.block(q, q + 1), space.gallery.take(first.numpy())])
            pool = Rows(rows)
            encoded, largest = encode(pool, self.k1, self.k2, self.settings)
            [(_, shared)] = shared_weights(encoded[:1], encoded[1:].tocsc(), self.memory_mb)
            itself = np.zeros(len(first), dtype=np.int64)
            squared = squared_distances(pool, itself, pool, itself + np.arange(1, len(rows)), self.memory_mb)
            final = self._mixed(jaccard_distances(shared.toarray()[0]), relative(squared, largest[itself]))
            order = torch.from_numpy(np.lexsort((squared, final)))
            distances.append(merge_distances(torch.from_numpy(final)[order], old[n_compared:]))
            ids.append(torch.cat([first[order], retrieved[n_compared:]]))
        return distances, ids

    def _mixed(self, jaccard: Floats, original: Floats) -> Floats:
        mixed: Floats = (1 - self.lambda_value) * jaccard + self.lambda_value * original
        return mixed.astype(np.float32)


def pool_of(space: SearchSpace) -> tuple[Rows, Ids]:
    """The gallery, then the queries that are not in it; and where in that pool each query is.

    A query that is in the gallery, but with another embedding there (after a query expansion), is both.
    """
    from oml_vit_ext.retrieval.rows import Rows

    n_gallery = len(space.gallery)
    gallery, queries = space.gallery.block(0, n_gallery), space.queries.block(0, len(space.queries))
    positions = np.full(len(queries), -1, dtype=np.int64)
    if space.ignored:  # the first is that of the images themselves
        items = space.ignored[0]
        order = np.argsort(items.gallery, kind="stable")
        at = np.minimum(np.searchsorted(items.gallery, items.queries, sorter=order), n_gallery - 1)
        same = order[at]
        is_there = (items.gallery[same] == items.queries) & (gallery[same] == queries).all(axis=1)
        positions[is_there] = same[is_there]
    others = np.flatnonzero(positions < 0)
    positions[others] = n_gallery + np.arange(len(others))
    return Rows(np.concatenate([gallery, queries[others]]), name="embeddings"), positions


def _per_query(keys: Ids, final: Floats, n_gallery: int, n_queries: int) -> Iterator[tuple[Ids, Floats]]:
    ends = np.searchsorted(keys // n_gallery, np.arange(n_queries + 1))
    for start, stop in pairwise(ends):
        yield keys[start:stop] % n_gallery, final[start:stop]
