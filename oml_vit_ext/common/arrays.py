"""Names for what arrays and tuples hold, and numbers that must be whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Box = tuple[int, int, int, int]  # left, upper, right, lower, px


def whole_numbers(values: ArrayLike | Any, name: str) -> Ids:
    """``values`` as int64, in their shape; whole numbers in floating-point or text form are taken as well.

    Args:
        values: Numbers. Booleans are none: a mask is not a list of numbers.
        name: What they are, at the beginning of the sentence.

    Raises:
        ValueError: One is no whole number, or too large.
    """
    try:
        given = np.asarray(values)
        if given.size == 0:
            return np.zeros(given.shape, dtype=np.int64)
        if given.dtype.kind == "b" or (given.dtype.kind == "O" and any(isinstance(v, bool) for v in given.flat)):
            raise ValueError
        with np.errstate(invalid="ignore"):  # NaN and infinity, which the comparison finds
            whole = given.astype(np.int64)
        compared = given if given.dtype.kind in "iu" else given.astype(np.float64)
        if not (compared == whole).all():
            raise ValueError
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{name} are {_shortened(values)}, expected whole numbers.") from None
    return whole


def row_of_whole_numbers(values: ArrayLike | Any, name: str) -> Ids:
    """:func:`whole_numbers` of one dimension, ``(N,)``.

    Raises:
        ValueError: As there, or for another number of dimensions.
    """
    row = whole_numbers(values, name)
    if row.ndim != 1:
        raise ValueError(f"{name} are of shape {row.shape}, expected one number for each row.")
    return row


def _shortened(values: Any) -> str:
    return " ".join(repr(values).split())[:80]
