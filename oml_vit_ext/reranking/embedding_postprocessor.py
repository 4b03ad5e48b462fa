"""What postprocessors that compute with the embeddings have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from oml.interfaces.datasets import IQueryGalleryDataset
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.retrieval.retrieval_results import RetrievalResults

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.messages import counted

if TYPE_CHECKING:  # the folder imports faiss, which registering names must not
    from oml_vit_ext.retrieval.rows import Embeddings
    from oml_vit_ext.retrieval.search_space import SearchSpace
    from oml_vit_ext.retrieval.settings import Settings


class EmbeddingPostprocessor(IRetrievalPostprocessor, ABC):
    """Searches again, or orders anew, with the embeddings that the results come from.

    OML's metric, and with it OML's pipelines, hand the embeddings over (``oml_patches/postprocessor_embeddings.py``).

    Args:
        memory_mb: Bound for temporary memory, in MB (1e6 bytes).
        verbose: Show progress.

    Raises:
        ValueError: ``memory_mb`` is not positive.

    Attributes:
        top_n: So many items have to be retrieved before; OML's metric asks for it.
        independent: Whether the results of a query do not depend on the other queries.
        whole_gallery: Whether it needs the embeddings of the whole gallery, and not only of what is found.
    """

    independent: bool = True
    whole_gallery: bool = True

    def __init__(self, memory_mb: float = 256.0, verbose: bool = False) -> None:
        if not check_number("memory_mb", memory_mb) > 0:
            raise ValueError(f"memory_mb is {memory_mb!r}, expected a positive number of MB.")
        self.memory_mb, self.verbose = memory_mb, verbose

    @property
    def settings(self) -> Settings:
        """How to search: exactly, in this much memory."""
        from oml_vit_ext.retrieval.settings import Settings

        return Settings(memory_mb=self.memory_mb, verbose=self.verbose)

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
            f"The retrieval results have {counted(len(rr.retrieved_ids), 'query', 'queries')}, but the data set has "
            f"{n_queries}: expected the data set that they were retrieved from."
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
    from oml_vit_ext.retrieval.search_space import search_space

    return search_space(embeddings, dataset, settings)
