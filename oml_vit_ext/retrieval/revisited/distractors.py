"""Revisited Oxford and Paris among a million distractors (+R1M), whose rankings are never held.

The measures need the ranks of the labelled images alone. A distractor moves a labelled image down by one where it is
more similar to the query; counting these, chunk after chunk, gives the ranks exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from oml_vit_ext.common.arrays import Floats, Ids
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.progress import progress
from oml_vit_ext.retrieval.revisited.protocol import KINDS, GroundTruth, labelled_images, scores_of_ranks


def evaluate_revisited_embeddings(
    queries: Floats,
    database: Floats,
    ground_truth: GroundTruth,
    distractors: Iterable[Floats] = (),
    kappas: Sequence[int] = (1, 5, 10),
    *,
    n_distractors: int | None = None,
    verbose: bool = False,
) -> dict[str, dict[str, float]]:
    """``evaluate_revisited`` on the exact ranking of database and distractors by inner product.

    Args:
        queries: Embeddings ``(Q, D)``.
        database: Embeddings ``(N, D)`` of the images that the ground truth numbers.
        ground_truth: For each query the image numbers ``easy``, ``hard`` and ``junk``.
        distractors: Chunks ``(any, D)`` of embeddings, see :func:`stored_chunks`; one chunk is in memory at a time.
        kappas: The k of mP@k.
        n_distractors: How many there are, for the progress bar.
        verbose: Show it.

    Raises:
        ValueError: The embeddings do not go together or hold NaN, or the ground truth does not fit the database.
    """
    queries = _checked(queries, "queries", None)
    database = _checked(database, "database", queries.shape[1])
    images = labelled_images(ground_truth)
    if len(images) != len(queries):
        raise ValueError(
            f"Embeddings are of {counted(len(queries), 'query', 'queries')}, ground truth is for {len(images)}: "
            f"expected as many."
        )
    wanted = [np.concatenate([of_query[kind] for kind in KINDS]) for of_query in images]
    for query, ids in enumerate(wanted):
        if len(ids) and not (ids.min() >= 0 and ids.max() < len(database)):
            raise ValueError(
                f"The ground truth of query {query} names the images {ids.min()} to {ids.max()}, expected "
                f"0 to {len(database) - 1}, those of the database."
            )
    ranks, similarities = _ranks_in_database(queries, database, wanted)
    _add_distractors(ranks, similarities, queries, distractors, n_distractors, verbose)
    return scores_of_ranks([_by_kind(of_query, r) for of_query, r in zip(images, ranks, strict=True)], kappas)


def _ranks_in_database(queries: Floats, database: Floats, wanted: list[Ids]) -> tuple[list[Ids], list[Floats]]:
    """Rank and similarity of each wanted image; of equally similar images the one of lower number is first."""
    ranks, similarities = [], []
    for all_similarities, ids in zip(queries @ database.T, wanted, strict=True):
        rank = np.empty(len(database), dtype=np.int64)
        rank[np.argsort(-all_similarities, kind="stable")] = np.arange(len(database))
        ranks.append(rank[ids])
        similarities.append(all_similarities[ids])
    return ranks, similarities


def _add_distractors(
    ranks: list[Ids],
    similarities: list[Floats],
    queries: Floats,
    distractors: Iterable[Floats],
    n_distractors: int | None,
    verbose: bool,
) -> None:
    """Move each wanted image down, in place, by the distractors that are more similar; equal ones stay behind it."""
    orders = [np.argsort(of_query, kind="stable") for of_query in similarities]
    ascending = [of_query[order] for of_query, order in zip(similarities, orders, strict=True)]
    above = [np.zeros(len(of_query) + 1, dtype=np.int64) for of_query in similarities]
    with progress(total=n_distractors, desc="Distractors", unit=" images", verbose=verbose) as bar:
        for chunk in distractors:
            rows = _checked(chunk, "distractors", queries.shape[1], allow_empty=True)
            for query, of_chunk in enumerate(queries @ rows.T):
                # A distractor that beats n of the wanted images beats the n least similar ones.
                beaten = np.searchsorted(ascending[query], of_chunk, side="left")
                above[query] += np.bincount(beaten, minlength=len(above[query]))
            bar.update(len(rows))
    for rank, order, counts in zip(ranks, orders, above, strict=True):
        rank[order] += counts[::-1].cumsum()[::-1][1:]


def _by_kind(images: dict[str, Ids], ranks: Ids) -> dict[str, Ids]:
    ends = np.cumsum([len(images[kind]) for kind in KINDS])
    return dict(zip(KINDS, np.split(ranks, ends[:-1]), strict=True))


def _checked(rows: Floats, name: str, dim: int | None, allow_empty: bool = False) -> Floats:
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    if rows.ndim != 2 or (not allow_empty and len(rows) == 0):
        raise ValueError(f"The embeddings of the {name} have shape {rows.shape}, expected (rows, dim).")
    if dim is not None and rows.shape[1] != dim:
        raise ValueError(
            f"The {name} have dimension {rows.shape[1]}, but the queries {dim}: do they come from one model?"
        )
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise ValueError(f"Embedding {bad} of the {name} holds NaN or infinity.")
    return rows
