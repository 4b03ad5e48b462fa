"""Groups images by aspect ratio: the one function that the sampler and the transform must agree on.

Group-size sampling (Song et al., arXiv 2210.11909): a batch holds images of similar shape, all resized to one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

# Width x height in px, as in public code of the method; the paper does not list its own.
GROUP_SIZES = ((512, 352), (512, 384), (448, 448), (384, 512), (352, 512))


def checked_sizes(sizes: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """The sizes as pairs of integers.

    Raises:
        ValueError: There are none, one is not a pair of positive integers, or two have the same shape, so that the
            second would never be used.
    """
    try:
        pairs = [tuple(size) for size in sizes]
    except TypeError as error:
        raise ValueError(f"sizes is {sizes!r:.80}, expected a list of [width, height] in pixels.") from error
    if not pairs:
        raise ValueError("sizes is empty, expected at least one [width, height] in pixels, e.g. [[448, 448]].")
    for pair in pairs:
        if len(pair) != 2 or not all(type(side) is int and 0 < side <= 10_000 for side in pair):
            raise ValueError(f"sizes holds {list(pair)}, expected [width, height] in pixels, e.g. [512, 352].")
    for i, (w, h) in enumerate(pairs):
        for v, u in pairs[:i]:
            if w * u == v * h:
                raise ValueError(f"sizes holds {[v, u]} and {[w, h]}, which have the same shape: keep one of them.")
    return tuple((w, h) for w, h in pairs)


def group_of(
    width: int | NDArray[np.int64], height: int | NDArray[np.int64], sizes: Sequence[tuple[int, int]]
) -> NDArray[np.int64]:
    """Index of the size whose shape is nearest: the smallest factor between the aspect ratios.

    Between two sizes of ratios a < b the border is sqrt(ab), compared in integers: an image gets the same group here as
    a number and there in an array, which logarithms in floating point do not promise.

    Args:
        width: Pixels, a number or ``(N,)`` integers.
        height: Alike.
        sizes: What :func:`checked_sizes` returned.

    Returns:
        The index, or ``(N,)`` of them.

    >>> group_of(np.array([640, 480, 500]), np.array([480, 640, 500]), [(512, 384), (448, 448), (384, 512)])
    array([0, 2, 1])
    """
    w2, h2 = np.asarray(width, dtype=np.int64) ** 2, np.asarray(height, dtype=np.int64) ** 2
    by_ratio = sorted(range(len(sizes)), key=lambda i: sizes[i][0] / sizes[i][1])
    rank = np.zeros(w2.shape, dtype=np.int64)
    for narrow, wide in pairwise(by_ratio):
        (wa, ha), (wb, hb) = sizes[narrow], sizes[wide]
        rank += w2 * (ha * hb) > h2 * (wa * wb)
    return np.asarray(by_ratio)[rank]
