"""How this package words a wrong name, and a list that may be long."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_STEERING = {"Cc", "Zl", "Zp"}  # control characters, separators of lines
_TURNING = set(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))  # from here on right to left, and the like


def unknown_name(kind: str, value: object, valid: Iterable[str], max_listed: int = 12) -> str:
    """One sentence for a name that does not exist: what it is, its value, the nearest valid names.

    Args:
        kind: What the name stands for, e.g. ``"pooling"``.
        value: What was given.
        valid: All the names that would have been accepted.
        max_listed: Up to this many valid names are listed in full; of more, only the nearest ones.
    """
    names = sorted(valid)
    near = get_close_matches(str(value), names, n=3, cutoff=0.5)
    sentence = f"Unknown {kind} {value!r}"
    if near:
        sentence += f": did you mean {' or '.join(repr(n) for n in near)}?"
    else:
        sentence += "."
    if len(names) <= max_listed:
        sentence += f" Valid: {', '.join(repr(n) for n in names)}."
    return sentence


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "error"), counted(2_000, "photo"), counted(2, "query", "queries")
    ('1 error', '2,000 photos', '2 queries')
    """
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def some(items: Sequence[str]) -> str:
    """The first three of the items, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    more = f"; and {len(items) - 3} more" if len(items) > 3 else ""
    return "; ".join(items[:3]) + more


def by_reason(items: Sequence[str]) -> str:
    """Items of the form ``"name: reason"`` counted by their reasons, the first of each named.

    >>> by_reason(["a.jpg: missing", "b.jpg: not an image", "c.jpg: missing"])
    'missing (2): a.jpg; c.jpg. not an image (1): b.jpg'
    """
    names: dict[str, list[str]] = {}
    for item in items:
        name, _, reason = item.partition(": ")
        names.setdefault(reason, []).append(name)
    return ". ".join(f"{reason} ({len(those)}): {some(those)}" for reason, those in names.items())


def printable(name: str) -> str:
    """A name of a file on one line of a screen: what would steer the screen is written out."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _STEERING or c in _TURNING else c for c in name)
