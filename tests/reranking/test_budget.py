"""Which queries a budget re-ranks, and the curve of CMC@1 against the share of pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oml.retrieval.retrieval_results import RetrievalResults

from oml_vit_ext.reranking import budget_curve
from oml_vit_ext.reranking.budget import queries_to_rerank

# Gaps between the first two distances: 0.3, 0.05, none, 0.1
DISTANCES = [torch.tensor(d) for d in ([0.1, 0.4], [0.2, 0.25, 0.9], [0.5], [0.0, 0.1])]


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, [0, 1, 2, 3]),
        ({"budget": 0.25}, [1]),
        ({"budget": 0.3}, [1, 3]),
        ({"budget": 0.75}, [0, 1, 3]),
        ({"budget": 0.0}, []),
        ({"budget": 1.0}, [0, 1, 2, 3]),
        ({"margin": 0.1}, [1]),
        ({"margin": 0.2}, [1, 3]),
        ({"margin": 0.0}, []),
    ],
)
def test_the_closest_queries_come_first(kwargs: dict, expected: list[int]):
    assert queries_to_rerank(DISTANCES, **kwargs).tolist() == expected


def test_curve_against_plain_loops():
    rng = torch.Generator().manual_seed(0)
    n, top_n = 9, 3
    ids = [torch.randperm(20, generator=rng)[: 2 + q % 4] for q in range(n)]
    distances = [torch.rand(len(i), generator=rng).sort().values for i in ids]
    gt = [torch.cat([i[:1] if q % 3 else i[1:2], torch.tensor([30])]) for q, i in enumerate(ids)]
    before = RetrievalResults(distances, ids, gt)
    after_ids = [torch.cat([i[:top_n].flip(0), i[top_n:]]) for i in ids]
    curve = budget_curve(before, RetrievalResults(distances, after_ids, gt), top_n)

    n_all = sum(min(len(i), top_n) for i in ids)
    for row in range(n + 1):
        chosen = set(queries_to_rerank(distances, budget=row / n).tolist())
        top = [after_ids[q][0] if q in chosen else ids[q][0] for q in range(n)]
        assert curve.cmc1[row] == pytest.approx(np.mean([t in g for t, g in zip(top, gt, strict=True)]))
        assert curve.share_of_pairs[row] == pytest.approx(sum(min(len(ids[q]), top_n) for q in chosen) / n_all)
        assert set(queries_to_rerank(distances, margin=float(curve.margin[row])).tolist()) == chosen
    assert curve.share_of_pairs[-1] == 1 and len({*curve.cmc1}) > 2


def test_curve_needs_ground_truth_and_the_same_queries():
    ids = [torch.tensor([0, 1])]
    rr = RetrievalResults([torch.tensor([0.1, 0.2])], ids)
    with pytest.raises(ValueError, match="no ground truth"):
        budget_curve(rr, rr, 2)
    with_gt = RetrievalResults([torch.tensor([0.1, 0.2])], ids, [torch.tensor([0])])
    with pytest.raises(ValueError, match="1 query, those after of 2"):
        budget_curve(with_gt, RetrievalResults([torch.tensor([0.1])] * 2, [torch.tensor([0])] * 2), 2)
