"""Spend where it pays: re-rank only the queries whose first two distances are close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.messages import counted


def first_gaps(distances: Sequence[Tensor]) -> NDArray[np.float64]:
    """Second minus first distance of each query; infinite where there are fewer than two candidates."""
    return np.array([float(d[1] - d[0]) if len(d) > 1 else math.inf for d in distances])


def queries_to_rerank(
    distances: Sequence[Tensor], budget: float | None = None, margin: float | None = None
) -> NDArray[np.int64]:
    """Which queries are re-ranked under a budget.

    Args:
        distances: Sorted first-stage distances, one tensor per query.
        budget: The share of the queries with the smallest gaps between the first two distances, from 0 to 1.
        margin: Or the queries whose gap is below this.

    Returns:
        Positions of queries in ``distances``, ascending. All of them if neither is given.
    """
    if budget is None and margin is None:
        return np.arange(len(distances))
    gaps = first_gaps(distances)
    if margin is not None:
        return np.flatnonzero(gaps < margin)
    n = math.ceil((budget or 0) * len(gaps) - 1e-9)
    return np.sort(np.argsort(gaps, kind="stable")[:n])


@dataclass(frozen=True)
class BudgetCurve:
    """What re-ranking brings at every budget. Arrays of length queries + 1: the first row is the first stage alone.

    Attributes:
        share_of_pairs: Share of all pairs that is computed: the ``budget`` of this row, where all queries have equally
            many candidates.
        cmc1: Share of the queries whose first result is relevant, CMC@1.
        margin: The gap up to which, exclusively, queries are re-ranked: what to pass as ``margin`` for this row.
    """

    share_of_pairs: NDArray[np.float64]
    cmc1: NDArray[np.float64]
    margin: NDArray[np.float64]


def budget_curve(first_stage: Any, reranked: Any, top_n: int) -> BudgetCurve:
    """CMC@1 against the share of pairs computed, from scores for all pairs.

    Args:
        first_stage: ``RetrievalResults`` with ground truth, before re-ranking.
        reranked: The same after re-ranking the first ``top_n`` of every query.
        top_n: As in the re-ranker.

    Raises:
        ValueError: There is no ground truth, or the numbers of queries differ.

    >>> from oml.retrieval.retrieval_results import RetrievalResults
    >>> gt, distances = [torch.tensor([1])], [torch.tensor([0.1, 0.2])]
    >>> before = RetrievalResults(distances, [torch.tensor([0, 1])], gt_ids=gt)
    >>> after = RetrievalResults(distances, [torch.tensor([1, 0])], gt_ids=gt)
    >>> budget_curve(before, after, top_n=2).cmc1.tolist()
    [0.0, 1.0]
    """
    if first_stage.gt_ids is None:
        raise ValueError("The retrieval results have no ground truth (gt_ids is None): CMC@1 cannot be computed.")
    if len(first_stage.retrieved_ids) != len(reranked.retrieved_ids):
        raise ValueError(
            f"The results before re-ranking are of {counted(len(first_stage.retrieved_ids), 'query', 'queries')}, "
            f"those after of {len(reranked.retrieved_ids)}: expected the same queries."
        )
    gaps = first_gaps(first_stage.distances)
    order = np.argsort(gaps, kind="stable")
    before, after = (_first_is_relevant(rr, first_stage.gt_ids)[order] for rr in (first_stage, reranked))
    pairs = np.array([min(len(ids), top_n) for ids in first_stage.retrieved_ids])[order]
    hits = before.sum() + np.concatenate([[0], np.cumsum(after.astype(int) - before.astype(int))])
    computed = np.concatenate([[0], np.cumsum(pairs)])
    return BudgetCurve(
        share_of_pairs=computed / max(1, computed[-1]),
        cmc1=hits / max(1, len(order)),
        margin=np.append(gaps[order], math.inf),
    )


def _first_is_relevant(rr: Any, gt_ids: Sequence[Tensor]) -> NDArray[np.bool_]:
    return np.array(
        [
            bool(len(ids) and torch.isin(ids[:1].cpu(), gt.cpu()))
            for ids, gt in zip(rr.retrieved_ids, gt_ids, strict=True)
        ]
    )
