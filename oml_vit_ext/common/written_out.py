"""Content of a file whose parts stand in each other again and again: small in the file, endless for whoever reads it.

Forty lists, each of them twice in the next one, are 200 bytes in a file; whoever prints them meets 10^12 values.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

_HARMLESS = 10_000_000  # values
_MOST_REPEATED = 10  # times each value on average; in what training scripts write it is hardly more than once


def check_written_out(content: Any, *, may_hold_itself: bool = False) -> None:
    """Refuse plain data that is many times as long when each part is written out wherever it stands.

    Args:
        content: Dicts, lists, tuples, sets, arrays of objects, parsed arguments; all else counts as one value.
        may_hold_itself: Take a part that is inside of itself, and count it as one value there.

    Raises:
        ValueError: It is that long, or there is such a part.
    """
    sizes: dict[int, int] = {}  # of each part that is done, written out
    begun = {id(content)}
    n_values = 1
    waiting = [(content, iter(_inside(content)))]
    while waiting:
        part, inside = waiting[-1]
        new = next((inner for inner in inside if _is_part(inner) and id(inner) not in sizes), None)
        if new is None:
            values = _inside(part)
            n_values += len(values)
            sizes[id(part)] = 1 + sum(sizes.get(id(inner), 1) for inner in values)
            waiting.pop()
        elif id(new) not in begun:
            begun.add(id(new))
            waiting.append((new, iter(_inside(new))))
        elif not may_hold_itself:
            raise ValueError("a part of it is inside of itself")
    if sizes[id(content)] > max(_HARMLESS, _MOST_REPEATED * n_values):
        raise ValueError(f"its {n_values:,} values stand in each other so often that they stand for more than 10^7")


def _is_part(value: Any) -> bool:
    is_plain = isinstance(value, (dict, list, tuple, set, frozenset, argparse.Namespace))
    return is_plain or (isinstance(value, np.ndarray) and value.dtype.hasobject)


def _inside(part: Any) -> list[Any]:
    if isinstance(part, argparse.Namespace):
        part = vars(part)
    if isinstance(part, dict):
        return [*part.keys(), *part.values()]
    return list(part.flat if isinstance(part, np.ndarray) else part) if _is_part(part) else []
