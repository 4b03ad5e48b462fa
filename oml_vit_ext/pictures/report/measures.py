"""The numbers of a report: quality per query and on average, the spectrum, similarities, what is taken for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from oml.metrics.embeddings import calc_retrieval_metrics_rr
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from oml_vit_ext.common.arrays import Floats

_SHOWN = {"cmc": "CMC", "map": "MAP", "precision": "P"}
_MOST_QUERIES, _MOST_NEGATIVES = 1000, 1000  # of the histograms


@dataclass(frozen=True)
class Similarities:
    """Cosine similarities of pairs, counted. All arrays of length n are per bin.

    Attributes:
        edges: ``(n + 1,)`` from -1 to 1.
        positive: Share of the pairs of one label.
        negative: Share of the pairs of two labels.
        n_positive, n_negative: How many pairs were looked at.
    """

    edges: NDArray[np.float64]
    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    n_positive: int
    n_negative: int


def quality(results: RetrievalResults, top_k: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """OML's metrics by the names that people use, ``{"CMC@1": ...}``.

    Args:
        results: With ground truth.
        top_k: ``{"cmc": (1, 5), "map": (5,), "precision": ()}``; one that is missing is not computed.
    """
    found = calc_retrieval_metrics_rr(
        results,
        cmc_top_k=tuple(top_k.get("cmc", ())),
        map_top_k=tuple(top_k.get("map", ())),
        precision_top_k=tuple(top_k.get("precision", ())),
        verbose=False,
    )
    return {f"{_SHOWN[name]}@{k}": float(value) for name in _SHOWN for k, value in found.get(name, {}).items()}


def is_right(results: RetrievalResults, top_k: int) -> list[NDArray[np.bool_]]:
    """Per query whether each of its first ``top_k`` hits belongs to the ground truth."""
    gt_ids = results.gt_ids or ()
    return [
        np.isin(ids[:top_k].cpu().numpy(), gt.cpu().numpy())
        for ids, gt in zip(results.retrieved_ids, gt_ids, strict=True)
    ]


def average_precisions(results: RetrievalResults, k: int) -> Floats:
    """``(queries,)``: per query what OML's MAP@k is the mean of, 1 if the right hits among the first k come first."""
    found = calc_retrieval_metrics_rr(
        results, cmc_top_k=(), precision_top_k=(), map_top_k=(k,), reduce=False, verbose=False
    )
    return np.asarray(found["map"][k], dtype=np.float32)


def cumulative_variance(embeddings: Tensor) -> Floats:
    """Share of the variance in the first k principal components, ``(images, D)`` -> ``(D,)``, ending at 1."""
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    variances = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0)
    total = variances.sum()
    shares = variances.cumsum(0) / total if total > 0 else torch.ones_like(variances)
    return shares.numpy().astype(np.float32)


def n_components(cumulative: Floats, share: float = 0.9) -> int:
    """How many principal components carry this share of the variance."""
    return int(np.searchsorted(cumulative, share - 1e-6) + 1)


def similarities(
    embeddings: Tensor,
    labels: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    gallery_ids: NDArray[np.int64],
    *,
    n_bins: int = 50,
    seed: int = 0,
) -> Similarities:
    """Cosine similarities of queries and gallery images: of one label, and of two.

    At most 1000 queries, drawn at random, each with all its positives and with at most 1000 negatives.

    Args:
        embeddings: ``(images, D)``.
        labels: ``(images,)``.
        query_ids, gallery_ids: Rows of ``embeddings``. An image is never compared with itself.
        n_bins: Between -1 and 1.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    unit = F.normalize(embeddings.float(), dim=1)
    edges = np.linspace(-1, 1, n_bins + 1)
    counts = np.zeros((2, n_bins))
    for query in rng.permutation(query_ids)[:_MOST_QUERIES]:
        same = labels[gallery_ids] == labels[query]
        others = gallery_ids[~same]
        pairs = (
            rng.choice(others, min(len(others), _MOST_NEGATIVES), replace=False),
            gallery_ids[same & (gallery_ids != query)],
        )
        for is_positive, gallery in enumerate(pairs):
            values = (unit[torch.from_numpy(gallery)] @ unit[int(query)]).clamp(-1, 1).numpy()
            counts[is_positive] += np.histogram(values, edges)[0]
    totals = counts.sum(axis=1)
    negative, positive = counts / np.maximum(1, totals)[:, None]
    return Similarities(edges, positive, negative, int(totals[1]), int(totals[0]))


@dataclass(frozen=True)
class Confusion:
    """How often the first hit of a query of ``label`` was of the label ``taken_for``."""

    label: int
    taken_for: int
    count: int
    n_queries: int


def confusions(query_labels: NDArray[np.int64], first_labels: Sequence[int | None], n: int = 15) -> list[Confusion]:
    """The pairs of labels most often confused, first hits only.

    Args:
        query_labels: ``(queries,)``.
        first_labels: Per query the label of its first hit, ``None`` without any.
        n: At most so many.
    """
    n_queries = Counter(query_labels.tolist())
    wrong = Counter(
        (label, found)
        for label, found in zip(query_labels.tolist(), first_labels, strict=True)
        if found is not None and found != label
    )
    ordered = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))
    return [Confusion(label, found, count, n_queries[label]) for (label, found), count in ordered[:n]]
