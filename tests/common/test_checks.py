"""Single arguments: what is valid comes back as Python's own number, all else is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from oml_vit_ext.common.checks import check_number, check_whole


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_come_back_as_int(value: object):
    found = check_whole("n", value, 1, 3)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize("value", [0, 4, 3.0, "3", True, None, math.nan, np.float32(3), torch.tensor(3.0), [3]])
def test_all_else_is_named(value: object):
    with pytest.raises(ValueError, match=r"^n is .*, expected a whole number from 1 to 3 \(why\)\.$"):
        check_whole("n", value, 1, 3, why="why")


def test_without_an_upper_limit():
    assert check_whole("n", 10**30) == 10**30
    with pytest.raises(ValueError, match=r"^n is -1, expected a whole number of at least 0\.$"):
        check_whole("n", -1)


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int16(1)])
def test_numbers_come_back_as_float(value: object):
    found = check_number("x", value, 0.0, 1.0)
    assert found == value and type(found) is float


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None])
def test_other_numbers_are_named(value: object):
    with pytest.raises(ValueError, match=r"^x is .*, expected a number from 0 to 1\.$"):
        check_number("x", value, 0.0, 1.0)


def test_infinity_is_no_number_even_without_a_limit():
    with pytest.raises(ValueError, match=r"^x is inf, expected a finite number of at least 0\.$"):
        check_number("x", math.inf)


@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_whole_numbers_above_all_floats_are_no_numbers(value: int):
    with pytest.raises(ValueError, match=r"x is -?10+, expected a finite number of at least 0"):
        check_number("x", value)
