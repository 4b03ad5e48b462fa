"""Several postprocessors, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from oml.interfaces.datasets import IQueryGalleryDataset
from oml.interfaces.retrieval import IRetrievalPostprocessor
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from oml.utils.misc import remove_unused_kwargs
from torch import nn

from oml_vit_ext.reranking.embedding_postprocessor import EmbeddingPostprocessor, check_queries, space_for

if TYPE_CHECKING:
    from oml_vit_ext.retrieval.rows import Embeddings
    from oml_vit_ext.retrieval.search_space import SearchSpace


class PostprocessorChain(EmbeddingPostprocessor):
    """Each postprocessor gets what the one before it gave, and the embeddings as it left them.

    After a ``query_expansion`` that is the expanded ones. OML's postprocessors and re-rankers by pairs can be links.

    Args:
        postprocessors: In their order, each an object or ``{name, args}`` as in YAML.

    Attributes:
        top_n: The largest of the links; where one has none, OML's metric retrieves the whole gallery, as for that link.
        model: The pairwise model of a link, for OML's pipeline to put it on its device; of several, a list of modules.

    Raises:
        ValueError: The list is empty, or a link is neither.
    """

    def __init__(self, postprocessors: Sequence[IRetrievalPostprocessor | Mapping[str, Any]]) -> None:
        super().__init__()
        if not isinstance(postprocessors, Sequence) or not postprocessors:
            raise ValueError(f"postprocessors is {postprocessors!r}, expected a list of at least one postprocessor.")
        self.postprocessors = [_built(link) for link in postprocessors]

    @property
    def top_n(self) -> int:
        return max(link.top_n for link in self.postprocessors)  # type: ignore[attr-defined]

    @property
    def independent(self) -> bool:  # type: ignore[override]
        return all(getattr(link, "independent", True) for link in self.postprocessors)

    @property
    def whole_gallery(self) -> bool:  # type: ignore[override]
        return any(getattr(link, "whole_gallery", False) for link in self.postprocessors)

    @property
    def model(self) -> nn.Module:
        models = [link.model for link in self.postprocessors if hasattr(link, "model")]
        if not models:
            raise AttributeError("no link of this chain has a model")
        return models[0] if len(models) == 1 else nn.ModuleList(models)

    def process(
        self, rr: RetrievalResults, dataset: IQueryGalleryDataset, embeddings: Embeddings | None = None
    ) -> RetrievalResults:
        """As of each link; ``embeddings`` are needed if one of the links needs them."""
        check_queries(rr, dataset)
        return self._process(rr, dataset, embeddings, None)[0]

    def process_in(self, space: SearchSpace, rr: RetrievalResults) -> tuple[RetrievalResults, SearchSpace]:
        for link in self.postprocessors:
            if not isinstance(link, EmbeddingPostprocessor):
                raise ValueError(
                    f"{type(link).__name__} does not compute with embeddings alone, expected only postprocessors that "
                    f"do: re-rank the hits of an index by their images with rerank_hits."
                )
            rr, space = link.process_in(space, rr)
        return rr, space

    def _process(
        self,
        rr: RetrievalResults,
        dataset: IQueryGalleryDataset,
        embeddings: Embeddings | None,
        space: SearchSpace | None,
    ) -> tuple[RetrievalResults, SearchSpace | None]:
        for link in self.postprocessors:
            if isinstance(link, PostprocessorChain):
                rr, space = link._process(rr, dataset, embeddings, space)
            elif not isinstance(link, EmbeddingPostprocessor):
                arguments = {"rr": rr, "dataset": dataset, "embeddings": embeddings}
                rr = link.process(**remove_unused_kwargs(arguments, link.process))
            elif not rr.is_empty():
                space = space or space_for(type(link).__name__, embeddings, dataset, link.settings)
                rr, space = link.process_in(space, rr)
        return rr, space


def _built(link: IRetrievalPostprocessor | Mapping[str, Any]) -> IRetrievalPostprocessor:
    if isinstance(link, IRetrievalPostprocessor):
        return link
    if not isinstance(link, Mapping) or "name" not in link:
        raise ValueError(f"A link of the chain is {link!r:.80}, expected a postprocessor, or its name and args.")
    return get_postprocessor_by_cfg({"args": {}, **link})
