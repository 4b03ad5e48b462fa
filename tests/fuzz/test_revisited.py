"""The protocol of Revisited Oxford and Paris on random rankings, beside its rules written out in loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from oml_vit_ext.retrieval import evaluate_revisited

KINDS = ("easy", "hard", "junk", "none")
RIGHT = {"easy": {"easy"}, "medium": {"easy", "hard"}, "hard": {"hard"}}
OUT = {"easy": {"junk", "hard"}, "medium": {"junk"}, "hard": {"junk", "easy"}}


@st.composite
def queries(draw: Any) -> tuple[list[list[int]], list[dict[str, list[int]]], list[dict[int, str]]]:
    """Rankings, whole or cut short, and the ground truth, as its file has it and by image."""
    n = draw(st.integers(1, 12))
    rankings, truths, kinds = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        kind_of = dict(enumerate(draw(st.lists(st.sampled_from(KINDS), min_size=n, max_size=n))))
        rankings.append(draw(st.permutations(range(n)))[: draw(st.integers(0, n))])
        truths.append({kind: [i for i, k in kind_of.items() if k == kind] for kind in KINDS[:3]})
        kinds.append(kind_of)
    return rankings, truths, kinds


def average_precision(ranking: list[int], right: set[int]) -> float:
    total, found = 0.0, 0
    for rank, image in enumerate(ranking):
        if image in right:
            before = 1.0 if rank == 0 else found / rank
            found += 1
            total += (before + found / (rank + 1)) / 2
    return total / len(right)


def precision_at(k: int, ranking: list[int], right: set[int]) -> float:
    ranks = [rank for rank, image in enumerate(ranking) if image in right]
    if len(ranks) == len(right):
        k = min(k, max(ranks) + 1)
    return sum(rank < k for rank in ranks) / k


@fuzz(short=40, long=2_000)
@given(queries(), st.lists(st.integers(1, 20), max_size=3, unique=True))
def test_the_protocol(given_queries: Any, kappas: list[int]):
    rankings, truths, kinds = given_queries
    scores = evaluate_revisited([np.array(r, dtype=np.int64) for r in rankings], truths, kappas)
    for level in RIGHT:
        plain: dict[str, list[float]] = {"map": [], **{f"mp@{k}": [] for k in kappas}}
        for ranking, kind_of in zip(rankings, kinds, strict=True):
            right = {image for image, kind in kind_of.items() if kind in RIGHT[level]}
            left = [image for image in ranking if kind_of[image] not in OUT[level]]
            if right:
                plain["map"].append(average_precision(left, right))
                for k in kappas:
                    plain[f"mp@{k}"].append(precision_at(k, left, right))
        for name, values in plain.items():
            expected = sum(values) / len(values) if values else math.nan
            np.testing.assert_allclose(scores[level][name], expected, rtol=1e-12)


NUMBERS = st.one_of(
    st.lists(st.one_of(st.integers(-2, 5), st.floats(), st.booleans(), st.none(), st.text(max_size=2)), max_size=4),
    st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=3),
    ODD_VALUES,
)


@fuzz(short=50, long=2_000)
@given(
    st.lists(NUMBERS, min_size=1, max_size=2),
    st.one_of(
        st.lists(st.dictionaries(st.sampled_from([*KINDS]), NUMBERS, min_size=2), min_size=1, max_size=2),
        st.just([{"easy": [0], "hard": [1], "junk": [2]}]),
    ),
    st.one_of(st.just([1, 5]), st.lists(ODD_VALUES, max_size=2)),
)
def test_what_is_no_ranking_is_refused(rankings: Any, truth: Any, kappas: Any):
    scores = result_or_refusal(lambda: evaluate_revisited(rankings, truth, kappas))
    assert isinstance(scores, (Refusal, dict))
