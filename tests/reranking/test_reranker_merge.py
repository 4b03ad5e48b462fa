"""The scale of re-ranked distances: sorted, finite, not above the rest, order and ratios kept."""

from __future__ import annotations

import pytest
import torch

from oml_vit_ext.reranking.reranker import merge_distances


def test_the_oml_own_example():
    merged = merge_distances(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([0.5, 0.6]))
    torch.testing.assert_close(merged, torch.tensor([0.1, 0.2, 0.5, 0.5, 0.6]))


def test_nothing_is_scaled_without_need():
    new, rest = torch.tensor([0.2, 0.3, 0.4]), torch.tensor([0.6, 0.7])
    assert torch.equal(merge_distances(new, rest), torch.cat([new, rest]))


@pytest.mark.parametrize(
    "new, rest",
    [
        ([1e-7, 0.999, 1.0], [1e-6, 0.1]),
        ([0.1, 0.5], [0.0, 0.2]),
        ([-3.0, -1.0], [-2.0, 5.0]),
        ([-3.0, 4.0], [0.5]),
        ([97.0, 98.0, 99.5], [0.3]),
        ([0.3, 0.3, 0.3], [0.1]),
        ([0.5], []),
        ([], [0.5]),
        ([], []),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_sorted_finite_and_order_kept(new: list[float], rest: list[float], dtype: torch.dtype):
    given = torch.tensor(new, dtype=dtype)
    merged = merge_distances(given, torch.tensor(rest))
    assert merged.dtype == torch.float32 and len(merged) == len(new) + len(rest)
    assert merged.isfinite().all() and (merged.diff() >= 0).all()
    assert torch.equal(merged[len(new) :], torch.tensor(rest))
    assert torch.equal(merged[: len(new)].diff() > 0, given.diff() > 0)  # what differed still differs


def test_many_random_cases_stay_sorted_after_rounding():
    for seed in range(200):
        g = torch.Generator().manual_seed(seed)
        merged = merge_distances(torch.rand(5, generator=g).sort().values, torch.rand(3, generator=g).sort().values)
        assert (merged.diff() >= 0).all()
