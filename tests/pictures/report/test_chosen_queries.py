"""Which queries are shown."""

from __future__ import annotations

import numpy as np

from oml_vit_ext.pictures.report.chosen_queries import chosen_queries, drawn_queries


def _precisions(n: int = 200) -> list[np.ndarray]:
    before = np.linspace(0.2, 1, n, dtype=np.float32)
    after = before.copy()
    after[50], after[150] = before[50] + 0.5, before[150] - 0.5
    return [before, after]


def test_the_worst_the_most_changed_and_others_all_worst_first():
    before, after = _precisions()
    chosen = chosen_queries(after, before, 30)
    assert len(set(chosen.tolist())) == 30
    assert set(np.argsort(after)[:10]) <= set(chosen) and {50, 150} <= set(chosen)
    assert (np.diff(after[chosen]) >= 0).all()
    assert (chosen > 100).sum() >= 3, "others at random"


def test_few_queries_are_all_shown_and_the_draw_repeats():
    after = np.ones(9, dtype=np.float32)
    assert sorted(chosen_queries(after, None, 100).tolist()) == list(range(9))
    many = np.ones(500, dtype=np.float32)
    assert (chosen_queries(many, None, 50) == chosen_queries(many, None, 50)).all()
    assert chosen_queries(np.zeros(0, dtype=np.float32), None, 5).tolist() == []


def test_each_query_is_as_likely_to_be_drawn():
    assert sorted(drawn_queries(9, 100).tolist()) == list(range(9))
    counts = np.zeros(10)
    for seed in range(400):
        counts[drawn_queries(10, 3, seed)] += 1
    assert (abs(counts - 120) < 40).all(), "120 expected, a standard deviation is 9"
