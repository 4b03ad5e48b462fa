"""What several galleries find together, against one search of all rows."""

from __future__ import annotations

import numpy as np

from helpers.random_index import random_rows
from oml_vit_ext.retrieval.engines import ExactEngine
from oml_vit_ext.retrieval.index.postprocessing import JoinedEngine
from oml_vit_ext.retrieval.rows import Rows


class FindsHalf:
    """An approximate engine that finds every other row of what there is."""

    exact = False

    def __init__(self, engine: ExactEngine) -> None:
        self.engine = engine

    def search(self, queries, k):
        distances, ids = self.engine.search(queries, k)
        return distances, np.where(ids % 2, -1, ids)


def test_joined_engines_find_what_one_finds_and_fill_up_with_minus_one() -> None:
    x, queries = random_rows(np.arange(30)), random_rows(np.arange(100, 104))
    ends = np.array([3, 10, 30])
    engines = [ExactEngine(Rows(part), 1) for part in np.split(x, ends[:-1])]
    joined = JoinedEngine(engines, ends)
    distances, ids = joined.search(queries, 12)
    squared = ((queries[:, None] - x[None]) ** 2).sum(-1)
    assert joined.exact and (ids == np.argsort(squared, axis=1)[:, :12]).all()
    np.testing.assert_allclose(distances, np.sort(squared, axis=1)[:, :12], rtol=1e-4)
    half = JoinedEngine([engines[0], FindsHalf(engines[1]), engines[2]], ends)
    distances, ids = half.search(queries, 30)
    assert not half.exact and ids.shape == (4, 30)
    for found in ids:  # of rows 3 to 9, the second gallery, every other one
        assert sorted(found[:27].tolist()) == [*range(4), 5, 7, 9, *range(10, 30)] and (found[27:] == -1).all()
