"""Which rows can be searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oml_vit_ext.retrieval.engines import ExactEngine
from oml_vit_ext.retrieval.rows import Rows


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (1e19, "numbers above"), (-3e37, "numbers above")],
)
def test_rows_whose_distances_float32_cannot_hold_are_refused(make, value: float, what: str) -> None:
    matrix = np.ones((5, 4), np.float32)
    matrix[3, 2] = value
    with pytest.raises(ValueError, match=rf"1 of the rows 0 to 4 hold {what}.*row 3\)"):
        Rows(make(matrix)).check()


def test_the_longest_rows_are_all_found() -> None:
    matrix = np.random.default_rng(0).choice([-4.4e18, 4.4e18], (50, 4)).astype(np.float32)
    rows = Rows(matrix)
    rows.check()
    distances, found = ExactEngine(rows, 1).search(matrix, 50)
    assert np.isfinite(distances).all() and (np.sort(found, axis=1) == np.arange(50)).all()
