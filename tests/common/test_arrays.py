"""Numbers that must be whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from oml_vit_ext.common.arrays import row_of_whole_numbers, whole_numbers


@pytest.mark.parametrize(
    "values",
    [[3, 1], np.array([3, 1], np.uint8), [3.0, 1.0], torch.tensor([3, 1]), ["3", "1"], np.array([3, 1], object)],
)
def test_whole_numbers_are_taken_in_any_form(values) -> None:
    assert whole_numbers(values, "The ids").tolist() == [3, 1]
    assert whole_numbers(values, "The ids").dtype == np.int64


def test_none_at_all_are_whole() -> None:
    assert whole_numbers([], "The ids").shape == (0,)


@pytest.mark.parametrize(
    "values",
    [
        *([1.7], [0.9], [np.nan], [np.inf], [True, False], np.ones(3, bool), [1, None], None, ["a"], [[1], [2, 3]]),
        *([2**64], 1e30, np.array([2**63], np.uint64), np.array([True, 2], object)),
    ],
)
def test_what_is_no_whole_number_is_refused(values) -> None:
    with pytest.raises(ValueError, match=r"^The ids are .*, expected whole numbers\.$"):
        whole_numbers(values, "The ids")


@pytest.mark.parametrize("values", [None, 7, [[1, 2]], ["a"], {"a": 1}])
def test_what_is_no_row_of_numbers(values: Any):
    with pytest.raises(ValueError, match=r"labels are .*, expected"):
        row_of_whole_numbers(values, "labels")
