"""Near images: pure functions from embeddings and labels to row numbers (Radenović et al., arXiv 1711.02512)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.messages import counted

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]


def checked_embeddings(embeddings: Tensor | NDArray[np.floating[Any]], n_rows: int) -> Floats:
    """Embeddings of ``n_rows`` images, ``(n_rows, D)``, as numpy's float32.

    Raises:
        ValueError: They are of another shape, or hold NaN or infinity.
    """
    found = embeddings.detach().float().cpu().numpy() if isinstance(embeddings, Tensor) else np.asarray(embeddings)
    if found.ndim != 2 or len(found) != n_rows:
        raise ValueError(
            f"The shape of the embeddings of {counted(n_rows, 'image')} is {found.shape}, expected a row for each."
        )
    if not np.isfinite(found).all():
        raise ValueError("The embeddings hold NaN or infinity: near images cannot be found by them.")
    return np.ascontiguousarray(found, dtype=np.float32)


def hardest_negatives(
    anchors: Floats, anchor_labels: Ids, candidates: Floats, candidate_labels: Ids, n_negatives: int
) -> tuple[Ids, Floats]:
    """For each anchor the most similar candidates of other labels, at most one of each label.

    Args:
        anchors: Embeddings ``(A, D)``; similarity is the inner product.
        anchor_labels: ``(A,)``.
        candidates: Embeddings ``(C, D)``.
        candidate_labels: ``(C,)``.
        n_negatives: How many for each anchor.

    Returns:
        Positions among the candidates ``(A, n_negatives)``, most similar first, and the similarities.

    Raises:
        ValueError: The candidates have too few labels.

    >>> candidates = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]], dtype=np.float32)
    >>> rows, _ = hardest_negatives(candidates[:1], np.array([5]), candidates, np.array([5, 6, 6, 7]), n_negatives=2)
    >>> rows
    array([[1, 3]])
    """
    import faiss  # here, as importing the package shall not cost what searching needs

    n_labels = len(np.unique(candidate_labels))
    if n_labels < n_negatives + 1:
        raise ValueError(
            f"The candidates have {counted(n_labels, 'label')}, expected at least {n_negatives + 1}: one of each of "
            f"{counted(n_negatives, 'negative')} and that of the anchor. Take more candidates or fewer negatives."
        )
    chosen = np.empty((len(anchors), n_negatives), dtype=np.int64)
    similarity = np.empty((len(anchors), n_negatives), dtype=np.float32)
    open_rows, k = np.arange(len(anchors)), min(len(candidates), 32 * n_negatives)
    while len(open_rows):
        found_similarity, found = faiss.knn(
            np.ascontiguousarray(anchors[open_rows], dtype=np.float32),
            np.ascontiguousarray(candidates, dtype=np.float32),
            k,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
        unfinished = []
        for i, row in enumerate(open_rows):
            picks = _one_of_each_label(candidate_labels[found[i]], anchor_labels[row], n_negatives)
            if len(picks) < n_negatives:  # its own label or a single other one fills the list: look further
                unfinished.append(row)
                continue
            chosen[row], similarity[row] = found[i, picks], found_similarity[i, picks]
        open_rows, k = np.array(unfinished, dtype=np.int64), min(len(candidates), 8 * k)
    return chosen, similarity


def arrange(labels: Ids, n_tuples: int) -> list[list[int]]:
    """Put tuples into batches of ``n_tuples`` so that a label is in few tuples of a batch, in none but one if possible.

    Two tuples with one label would count as positives of each other, though large clusters hold images that show
    nothing in common, and the same image could be twice in a batch.

    Args:
        labels: ``(T, L)`` labels of the images of each tuple.
        n_tuples: Tuples in a batch; those that fill no batch are left out.

    Returns:
        For each batch the numbers of its tuples.

    >>> arrange(np.array([[0, 1], [0, 2], [3, 4], [5, 6]]), n_tuples=2)
    [[0, 2], [1, 3]]
    """
    batches: list[list[int]] = [[] for _ in range(len(labels) // n_tuples)]
    used: list[set[int]] = [set() for _ in batches]
    open_batches = list(range(len(batches)))
    for i, of_tuple in enumerate(map(set, labels.tolist())):
        if not open_batches:
            break
        target = next((b for b in open_batches if used[b].isdisjoint(of_tuple)), None)
        if target is None:
            target = min(open_batches, key=lambda b: len(used[b] & of_tuple))
        batches[target].append(i)
        used[target] |= of_tuple
        if len(batches[target]) == n_tuples:
            open_batches.remove(target)
    return batches


def _one_of_each_label(labels: Ids, own: int, n: int) -> list[int]:
    """Positions of the first ``n`` labels that are not ``own``, each once."""
    seen, picks = {own}, []
    for position, label in enumerate(labels.tolist()):
        if label not in seen:
            seen.add(label)
            picks.append(position)
            if len(picks) == n:
                break
    return picks
