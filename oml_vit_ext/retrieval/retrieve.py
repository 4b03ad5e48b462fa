"""OML's retrieval results through faiss."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from oml.const import SEQUENCE_COLUMN
from oml.interfaces.datasets import (
    IBaseDataset,
    ILabeledDataset,
    IQueryGalleryDataset,
    IQueryGalleryLabeledDataset,
)
from oml.retrieval.retrieval_results import RetrievalResults
from torch import FloatTensor, LongTensor, Tensor

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.engines import make_engine
from oml_vit_ext.retrieval.nearest import Grouping, ground_truth, nearest
from oml_vit_ext.retrieval.rows import Embeddings, Rows, check_dims, check_matrix
from oml_vit_ext.retrieval.settings import EXACT, MEMORY_MB, Settings

_FIELDS = {"_distances", "_retrieved_ids", "_gt_ids"}  # of OML's RetrievalResults

# Per query: distances, gallery positions, positions of the ground truth.
Neighbours = tuple[Sequence[FloatTensor], Sequence[LongTensor], Sequence[LongTensor] | None]


def retrieve(
    embeddings: Embeddings,
    dataset: IQueryGalleryDataset | IQueryGalleryLabeledDataset,
    n_items: int = 100,
    index: str = EXACT,
    verbose: bool = False,
    *,
    search_params: str = "",
    memory_mb: float = MEMORY_MB,
) -> RetrievalResults:
    """What OML's ``RetrievalResults.from_embeddings`` gives, found through faiss.

    With ``index="Flat"`` the items are the same, and so are the distances, except that those near zero are more precise
    here. Of items at the same distance the earlier one in the gallery comes first; OML promises no order. As there, a
    query neither finds itself nor its own sequence, queries may get fewer items than asked for, and ground truth is
    given for labelled datasets. The results are on the CPU.

    Args:
        embeddings: ``(len(dataset), dim)``, a tensor or an array of any floating type; a memory-mapped array is read
            block by block. They need not be normalised: distances are Euclidean.
        dataset: Has the query/gallery split, and labels if it is labelled.
        n_items: Gallery items per query, at most.
        index: A faiss factory string. ``Flat`` compares everything with everything; any other builds an approximate
            index of the gallery, e.g. ``IVF1024,Flat``, ``HNSW32``, ``IVF4096,PQ48np``; the items that it finds get
            their true distances and are ordered by them.
        verbose: Show progress.
        search_params: Settings of an approximate search, e.g. ``nprobe=16`` or ``efSearch=64``.
        memory_mb: Bound for temporary memory, in MB, beyond the results and an approximate index. More is used only
            where a single block of 64 queries needs it.

    Raises:
        ValueError: The embeddings are not as many as the dataset's items, not finite, or a row is all zeros;
            ``n_items`` is below 1; ``index`` or ``search_params`` mean nothing to faiss, or the gallery is too small
            to train such an index.

    Example:
        Six one-dimensional embeddings of two labels; every item is a query and in the gallery.

        >>> import pandas as pd, torch
        >>> from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
        >>> from oml.interfaces.datasets import IBaseDataset
        >>> class Items(IBaseDataset):  # in place of images: only their number counts
        ...     input_tensors_key, index_key, extra_data = "input_tensors", "idx", {}
        ...     def __len__(self):
        ...         return 6
        >>> df = pd.DataFrame({"label": [0, 0, 0, 1, 1, 1], "is_query": True, "is_gallery": True})
        >>> embeddings = torch.tensor([[1.0], [2.0], [4.0], [10.0], [11.0], [13.0]])
        >>> found = retrieve(embeddings, DFQueryGalleryLabeledDataset(Items(), df), n_items=2)
        >>> found.retrieved_ids[0].tolist(), found.distances[0].tolist(), found.gt_ids[0].tolist()
        ([1, 2], [1.0, 3.0], [1, 2])
    """
    check_length(embeddings, dataset, "embeddings")
    labels = np.asarray(dataset.get_labels()) if isinstance(dataset, IQueryGalleryLabeledDataset) else None
    distances, ids, gt_ids = knn(
        embeddings,
        ids_query=dataset.get_query_ids(),
        ids_gallery=dataset.get_gallery_ids(),
        sequence_ids=sequences_of(dataset),
        labels_gt=labels,
        n_items=n_items,
        settings=Settings(index, search_params, memory_mb, verbose),
    )
    return oml_results(distances, ids, gt_ids)


def retrieve_qg(
    embeddings_query: Embeddings,
    embeddings_gallery: Embeddings,
    dataset_query: IBaseDataset | ILabeledDataset,
    dataset_gallery: IBaseDataset | ILabeledDataset,
    n_items: int = 100,
    index: str = EXACT,
    verbose: bool = False,
    *,
    search_params: str = "",
    memory_mb: float = MEMORY_MB,
) -> RetrievalResults:
    """What OML's ``RetrievalResults.from_embeddings_qg`` gives, for separate query and gallery datasets.

    Arguments and errors are those of :func:`retrieve`. Sequences are told apart by their names in both datasets; OML
     numbers them in each dataset on its own, so that unrelated sequences can get the same number there.
    """
    check_length(embeddings_query, dataset_query, "query embeddings")
    check_length(embeddings_gallery, dataset_gallery, "gallery embeddings")
    of_query = np.asarray(dataset_query.get_labels()) if isinstance(dataset_query, ILabeledDataset) else None
    of_gallery = np.asarray(dataset_gallery.get_labels()) if isinstance(dataset_gallery, ILabeledDataset) else None
    labelled = of_query is not None and of_gallery is not None
    distances, ids, gt_ids = knn_qg(
        embeddings_query,
        embeddings_gallery,
        sequence_ids_query=sequences_of(dataset_query),
        sequence_ids_gallery=sequences_of(dataset_gallery),
        labels_query=of_query if labelled else None,
        labels_gallery=of_gallery if labelled else None,
        n_items=n_items,
        settings=Settings(index, search_params, memory_mb, verbose),
    )
    return oml_results(distances, ids, gt_ids)


def knn(
    embeddings: Embeddings,
    ids_query: Any,
    ids_gallery: Any,
    *,
    sequence_ids: Any = None,
    labels_gt: Any = None,
    n_items: int,
    settings: Settings,
) -> Neighbours:
    """OML's ``batched_knn`` through faiss: queries and gallery are rows of one matrix ``(L, dim)``.

    ``ids_query`` and ``ids_gallery`` say which rows; ``sequence_ids`` and ``labels_gt`` have one entry per row.
    """
    rows_query, rows_gallery = flat(ids_query).astype(np.int64), flat(ids_gallery).astype(np.int64)

    def of(rows: Any, values: Any) -> Any:
        return None if values is None else flat(values)[rows]

    return _search(
        Rows(embeddings, rows_query, "query embeddings"),
        Rows(embeddings, rows_gallery, "gallery embeddings"),
        items=(rows_query, rows_gallery),
        sequences=(of(rows_query, sequence_ids), of(rows_gallery, sequence_ids)),
        labels=(of(rows_query, labels_gt), of(rows_gallery, labels_gt)),
        n_items=n_items,
        settings=settings,
    )


def knn_qg(
    embeddings_query: Embeddings,
    embeddings_gallery: Embeddings,
    *,
    ids_query: Any = None,
    ids_gallery: Any = None,
    sequence_ids_query: Any = None,
    sequence_ids_gallery: Any = None,
    labels_query: Any = None,
    labels_gallery: Any = None,
    n_items: int,
    settings: Settings,
) -> Neighbours:
    """OML's ``batched_knn_qg`` through faiss; what is given for queries must be given for the gallery too."""
    return _search(
        Rows(embeddings_query, name="query embeddings"),
        Rows(embeddings_gallery, name="gallery embeddings"),
        items=(ids_query, ids_gallery),
        sequences=(sequence_ids_query, sequence_ids_gallery),
        labels=(labels_query, labels_gallery),
        n_items=n_items,
        settings=settings,
    )


def _search(
    queries: Rows,
    gallery: Rows,
    items: tuple[Any, Any],
    sequences: tuple[Any, Any],
    labels: tuple[Any, Any],
    *,
    n_items: int,
    settings: Settings,
) -> Neighbours:
    check_whole("n_items", n_items, 1)
    check_dims(queries, gallery)
    gallery.check()
    queries.check()
    ignored = [g for g in (grouping(items, "ids"), grouping(sequences, "sequences")) if g is not None]
    distances, ids = nearest(queries, gallery, make_engine(gallery, settings), n_items, ignored, settings)
    by_label = grouping(labels, "labels")
    gt_ids = None if by_label is None else ground_truth(by_label, ignored)
    return distances, ids, gt_ids  # type: ignore[return-value]


def grouping(values: tuple[Any, Any], name: str) -> Grouping | None:
    """Integer codes that are equal where the values are, over queries and gallery together."""
    of_queries, of_gallery = values
    if of_queries is None and of_gallery is None:
        return None
    if of_queries is None or of_gallery is None:
        known, unknown = ("gallery", "queries") if of_queries is None else ("queries", "gallery")
        raise ValueError(f"The {name} of the {known} are known but those of the {unknown} are not: expected both.")
    of_queries, of_gallery = flat(of_queries), flat(of_gallery)
    codes = pd.factorize(np.concatenate([of_queries, of_gallery]))[0].astype(np.int64)
    if name == "labels":  # images without one have nothing in common; of sequences OML takes these for one
        missing = np.flatnonzero(codes < 0)
        codes[missing] = -1 - missing
    return Grouping(codes[: len(of_queries)], codes[len(of_queries) :])


def sequences_of(dataset: IBaseDataset) -> Any:
    """OML's column of sequences, if there is one."""
    return dataset.extra_data.get(SEQUENCE_COLUMN)


def flat(values: Any) -> Any:
    """One dimension also where OML squeezed a single id to none."""
    return (values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)).reshape(-1)


def check_length(embeddings: Embeddings, dataset: IBaseDataset, name: str) -> None:
    check_matrix(embeddings, name)
    if len(embeddings) != len(dataset):
        raise ValueError(
            f"There are {len(embeddings)} {name} for a dataset of {counted(len(dataset), 'item')}: expected as many."
        )


def oml_results(
    distances: Sequence[Tensor], retrieved_ids: Sequence[Tensor], gt_ids: Sequence[Tensor] | None
) -> RetrievalResults:
    """What OML's constructor makes of these, without its looking through each query for order and doubles.

    The fields are written directly because these checks take 5 s beside a search of 23 s for the 60 502 queries of SOP;
    an OML whose class has other fields is given its own constructor.
    """
    results = RetrievalResults([], [])
    if set(vars(results)) != _FIELDS:
        return RetrievalResults(distances, retrieved_ids, gt_ids=gt_ids)  # type: ignore[arg-type]
    if gt_ids is not None and any(len(ids) == 0 for ids in gt_ids):
        warnings.warn("Some of the queries don't have available gts.", stacklevel=3)
    fields = {
        "_distances": tuple(distances),
        "_retrieved_ids": tuple(retrieved_ids),
        "_gt_ids": None if gt_ids is None else tuple(gt_ids),
    }
    vars(results).update(fields)
    return results
