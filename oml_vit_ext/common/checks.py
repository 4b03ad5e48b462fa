"""Checks of single arguments; the sentence of each error has one form: name, value, what was expected."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_whole(name: str, value: object, low: int = 0, high: int | None = None, why: str = "") -> int:
    """``value`` as an ``int``.

    Args:
        name: What the user calls the argument.
        value: What was given.
        low, high: Smallest and largest valid value; ``None`` for no upper limit.
        why: Where the limits come from, put behind them in brackets.

    Raises:
        ValueError: It is not a whole number (``True`` is none) in these limits.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or int(value) < low or (high is not None and int(value) > high):  # type: ignore[call-overload]
        wanted = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{name} is {value!r:.80}, expected a whole number {wanted}{f' ({why})' if why else ''}.")
    return int(value)  # type: ignore[call-overload]


def check_number(name: str, value: object, low: float = 0.0, high: float = math.inf) -> float:
    """``value`` as a ``float``.

    Raises:
        ValueError: It is not a finite number in [``low``, ``high``].
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        is_number = is_number and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # a whole number that no float is as large as
        is_number = False
    if not is_number or not low <= float(value) <= high:  # type: ignore[arg-type]
        wanted = f"a finite number of at least {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"
        raise ValueError(f"{name} is {value!r:.80}, expected {wanted}.")
    return float(value)  # type: ignore[arg-type]
