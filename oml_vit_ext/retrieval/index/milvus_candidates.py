"""What searches in Milvus have found so far, as a gallery for postprocessors: nothing else of it comes here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.retrieval.rows import Rows

# The answer to some queries: of each hit its key, its squared distance, its embedding and the rest.
Ask = Callable[[Floats, int], Iterator[list[Mapping[str, Any]]]]


class MilvusCandidates(Rows):
    """Rows are numbered in the order in which they are found; they, and no others, can be read.

    Args:
        ask: Searches: ``(Q, dim)`` and how many -> for each query its hits, with ``key``, ``distance`` (squared) and
            ``descriptor``.
        n: Images in the collection.
        dim: Of their embeddings.
    """

    exact = False  # an index in Milvus may hold rounded embeddings: distances are computed again

    def __init__(self, ask: Ask, n: int, dim: int) -> None:
        self.name = "embeddings"
        self.found: list[Mapping[str, Any]] = []
        self._ask, self._n, self._dim = ask, n, dim
        self._row_of: dict[str, int] = {}
        self._rows: list[Floats] = []

    def __len__(self) -> int:
        return self._n

    @property
    def dim(self) -> int:
        return self._dim

    def take(self, positions: Ids) -> Floats:
        taken = np.empty((len(positions), self._dim), dtype=np.float32)
        for i, position in enumerate(positions.tolist()):
            taken[i] = self._rows[position]
        return taken

    def block(self, start: int, stop: int) -> Floats:
        return self.take(np.arange(start, stop))

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        """``(Q, dim)`` -> ascending squared distances and positions, both ``(Q, k)``; -1 where none was found."""
        distances = np.full((len(queries), k), np.inf, dtype=np.float32)
        ids = np.full((len(queries), k), -1, dtype=np.int64)
        for q, hits in enumerate(self._ask(queries, k)):
            for rank, hit in enumerate(hits[:k]):
                row = self._row_of.setdefault(hit["key"], len(self.found))
                if row == len(self.found):
                    self.found.append({name: hit[name] for name in hit if name != "descriptor"})
                    self._rows.append(np.asarray(hit["descriptor"], dtype=np.float32))
                if row < self._n:  # else one that came in after the search had begun
                    distances[q, rank], ids[q, rank] = hit["distance"], row
        return distances, ids
