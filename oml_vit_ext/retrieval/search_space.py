"""Queries, a gallery and what no query may find: what postprocessors that compute with embeddings work in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from oml.interfaces.datasets import IQueryGalleryDataset
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.retrieval.engines import Engine, make_engine
from oml_vit_ext.retrieval.nearest import Grouping, nearest
from oml_vit_ext.retrieval.retrieve import check_length, flat, grouping, sequences_of
from oml_vit_ext.retrieval.rows import Embeddings, Rows
from oml_vit_ext.retrieval.settings import EXACT, Settings


@dataclass(frozen=True)
class SearchSpace:
    """The embeddings of one retrieval.

    Args:
        queries: ``(Q, dim)``.
        gallery: ``(G, dim)``.
        ignored: Pairs that OML leaves out: the same image, the same sequence.
        settings: How to search, and with how much memory.
        engine: Finds rows of the gallery; ``None``: the exact search.
        kept: What was computed of this gallery before, for the next call.
    """

    queries: Rows
    gallery: Rows
    ignored: list[Grouping]
    settings: Settings
    engine: Engine | None = None
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def search(self, n_items: int) -> tuple[list[Tensor], list[Tensor]]:
        """Per query distances and gallery positions of the nearest ``n_items``, as :func:`nearest` gives them."""
        engine = self.engine or make_engine(self.gallery, self.settings)
        return nearest(self.queries, self.gallery, engine, n_items, self.ignored, self.settings)

    def with_queries(self, queries: Rows) -> SearchSpace:
        """The same for other embeddings of the queries."""
        return replace(self, queries=queries)

    def with_gallery(self, gallery: Rows) -> SearchSpace:
        """The same for other embeddings of the gallery, which are searched exactly."""
        exactly = replace(self.settings, index=EXACT, search_params="")
        return replace(self, gallery=gallery, engine=None, kept={}, settings=exactly)


class SearchesAgain(Protocol):
    """A postprocessor that computes with embeddings, as far as an index knows it."""

    @property
    def top_n(self) -> int:
        """At least so many items per query have to be retrieved first."""

    @property
    def independent(self) -> bool:
        """Whether what it gives for a query does not depend on the other queries."""

    @property
    def whole_gallery(self) -> bool:
        """Whether it needs the embeddings of the whole gallery, and not only of what is found."""

    def process_in(self, space: SearchSpace, rr: RetrievalResults) -> tuple[RetrievalResults, SearchSpace]:
        """New results, and the space in which a next postprocessor goes on."""


def search_space(embeddings: Embeddings, dataset: IQueryGalleryDataset, settings: Settings) -> SearchSpace:
    """The queries and the gallery of a data set of OML, with OML's rules of what is left out.

    Args:
        embeddings: ``(len(dataset), dim)``, of any floating type, on any device.
        dataset: Says which rows are queries, which gallery, and which belong to one sequence.
        settings: How to search.

    Raises:
        ValueError: The embeddings are not as many as the items, or not finite, or a row is all zeros.
    """
    check_length(embeddings, dataset, "embeddings")
    query_ids, gallery_ids = (
        flat(ids).astype(np.int64) for ids in (dataset.get_query_ids(), dataset.get_gallery_ids())
    )
    queries = Rows(embeddings, query_ids, "query embeddings")
    gallery = Rows(embeddings, gallery_ids, "gallery embeddings")
    for rows in (queries, gallery):
        rows.check()
    ignored = [grouping((query_ids, gallery_ids), "ids")]
    sequences = sequences_of(dataset)
    if sequences is not None:
        named = flat(sequences)
        ignored.append(grouping((named[query_ids], named[gallery_ids]), "sequences"))
    return SearchSpace(queries, gallery, [group for group in ignored if group is not None], settings)
