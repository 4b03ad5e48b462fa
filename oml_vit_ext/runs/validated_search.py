"""What the validation of a config retrieves, in its order, also where items are at the same distance."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from oml.interfaces.datasets import IQueryGalleryDataset
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.oml_patches.search_from_config import KEY, search_of
from oml_vit_ext.retrieval.retrieve import oml_results

_TOP_K = ("cmc_top_k", "precision_top_k", "map_top_k")
_OMLS_TOP_K = (5,)  # what EmbeddingMetrics takes for each of them that a config leaves out


def retrieve_as_validated(
    embeddings: Tensor,
    dataset: IQueryGalleryDataset,
    config: Mapping[str, Any],
    n_items: int,
    *,
    top_n: int = 1,
    verbose: bool = False,
) -> RetrievalResults:
    """Search as OML's validation does for this config: so many items, through faiss if its key says so.

    Of items at the same distance OML takes the order that ``torch.topk`` leaves them in, and that depends on how many
    are asked for. Metrics are the same as the validation's only if the search is: where more items are wanted, they
    follow after those of the validation.

    Args:
        embeddings: ``(len(dataset), dim)``.
        dataset: Queries and gallery.
        config: Of a run; its ``metric_args`` and ``faiss_search`` count.
        n_items: Per query, at most.
        top_n: So many items does the validation's postprocessor ask for, see ``items_for``.
        verbose: Show progress.
    """
    depth = max(validation_depth(config, len(dataset.get_gallery_ids())), top_n)

    def search(n: int) -> RetrievalResults:
        with search_of(config.get(KEY)) or nullcontext():
            return RetrievalResults.from_embeddings(embeddings, dataset, n_items=n, verbose=verbose)  # type: ignore

    validated = search(depth)
    return first_items(validated, n_items) if n_items <= depth else continued(validated, search(n_items))


def items_for(postprocessor: Any, dataset: IQueryGalleryDataset) -> int:
    """How many items per query OML's metric retrieves for a postprocessor: all, where it does not say."""
    return int(getattr(postprocessor, "top_n", len(dataset.get_gallery_ids())))


def validation_depth(config: Mapping[str, Any], n_gallery: int) -> int:
    """How many items OML's metric retrieves per query, without a postprocessor."""
    given = config.get("metric_args") or {}
    ranks = [int(k) for name in _TOP_K for k in given.get(name, _OMLS_TOP_K)]
    return max([1, *ranks, n_gallery if given.get("fmr_vals") else 1])


def first_items(results: RetrievalResults, n_items: int) -> RetrievalResults:
    """At most ``n_items`` per query."""
    distances, ids = ([row[:n_items] for row in rows] for rows in (results.distances, results.retrieved_ids))
    return oml_results(distances, ids, results.gt_ids)


def continued(first: RetrievalResults, longer: RetrievalResults) -> RetrievalResults:
    """``first``, and after its items those that only ``longer`` has: two searches of the same, for fewer and for more.

    They differ in items at the same distance alone, so the distances of ``longer`` hold for both.
    """
    ids = []
    for of_first, of_longer in zip(first.retrieved_ids, longer.retrieved_ids, strict=True):
        others = of_longer[~torch.isin(of_longer, of_first)]
        ids.append(torch.cat([of_first, others])[: len(of_longer)])
    return oml_results(longer.distances, ids, longer.gt_ids)
