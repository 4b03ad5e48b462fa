"""What postprocessors that compute with the embeddings have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from oml.interfaces.datasets import IQueryGalleryDataset
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.retrieval.retrieval_results import RetrievalResults

from oml_vit_ext.retrieval.rows import Embeddings
from oml_vit_ext.retrieval.search_space import SearchSpace, search_space
from oml_vit_ext.retrieval.settings import MEMORY_MB, Settings


class EmbeddingPostprocessor(IRetrievalPostprocessor, ABC):
    """Searches again, or orders anew, with the embeddings that the results come from.

    OML's metric, and with it OML's pipelines, hand the embeddings over (``oml_patches/postprocessor_embeddings.py``).

    Args:
        memory_mb: Bound for temporary memory, in MB (1e6 bytes).
        verbose: Show progress.

    Attributes:
        top_n: So many items have to be retrieved before; OML's metric asks for it.
        independent: Whether the results of a query do not depend on the other queries.
    """

    independent: bool = True

    def __init__(self, memory_mb: float = MEMORY_MB, verbose: bool = False) -> None:
        self.settings = Settings(memory_mb=memory_mb, verbose=verbose)

    @property
    @abstractmethod
    def top_n(self) -> int:
        """At least so many items per query have to be retrieved first."""

    def process(
        self, rr: RetrievalResults, dataset: IQueryGalleryDataset, embeddings: Embeddings | None = None
    ) -> RetrievalResults:
        """New results, as many items per query as ``rr`` has; the ground truth stays.

        Args:
            rr: What was retrieved.
            dataset: What it was retrieved from: queries, gallery, sequences.
            embeddings: ``(len(dataset), dim)``: by which it was retrieved.

        Raises:
            ValueError: There are no ``embeddings``, they are not as many as the items, not finite or a row is all
                zeros; or ``rr`` has another number of queries.
        """
        check_queries(rr, dataset)
        if rr.is_empty():
            return rr.deepcopy()
        return self.process_in(space_for(type(self).__name__, embeddings, dataset, self.settings), rr)[0]

    @abstractmethod
    def process_in(self, space: SearchSpace, rr: RetrievalResults) -> tuple[RetrievalResults, SearchSpace]:
        """New results, and the space in which a next postprocessor goes on: with the new embeddings, if they change."""


def check_queries(rr: RetrievalResults, dataset: IQueryGalleryDataset) -> None:
    """Raise a ``ValueError`` unless the results are of as many queries as the data set has."""
    n_queries = dataset.get_query_ids().numel()
    if n_queries != len(rr.retrieved_ids):
        raise ValueError(
            f"The retrieval results have {len(rr.retrieved_ids)} queries, but the data set has {n_queries}: "
            f"expected the data set that they were retrieved from."
        )


def space_for(
    name: str, embeddings: Embeddings | None, dataset: IQueryGalleryDataset, settings: Settings
) -> SearchSpace:
    """The space of a data set, or a ``ValueError`` that tells where the embeddings come from."""
    if embeddings is None:
        raise ValueError(
            f"{name}: embeddings is None, expected those of the data set, ({len(dataset)}, dim). OML's metric and "
            f"pipelines hand them over; in a call of your own write process(rr, dataset, embeddings=embeddings)."
        )
    return search_space(embeddings, dataset, settings)
