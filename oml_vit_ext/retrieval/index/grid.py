"""Parts of an image that are embedded beside the whole: a small object fills a part as it never fills the picture."""

from __future__ import annotations

import numpy as np

from oml_vit_ext.common.arrays import Box, Ids
from oml_vit_ext.common.checks import check_whole

LARGEST = 16


def check_grid(grid: object) -> int:
    """``grid`` as an ``int``: 0 for none, or n for n × n parts.

    Raises:
        ValueError: It is something else. 1 would be the whole image again.
    """
    n = check_whole("grid", grid, 0, LARGEST, why="n x n parts; 0 for none")
    if n == 1:
        raise ValueError("grid is 1, expected 0 for none, or 2 and more: one part is the whole image again.")
    return n


def rows_per_image(grid: int) -> int:
    """The whole image and its parts."""
    return 1 + grid * grid


def grid_boxes(region: Box, grid: int) -> list[Box]:
    """The n × n parts of a region, row by row, side by side without overlap; each at least a pixel wide and high.

    >>> grid_boxes((0, 0, 9, 4), 2)
    [(0, 0, 4, 2), (4, 0, 9, 2), (0, 2, 4, 4), (4, 2, 9, 4)]
    """
    left, upper, right, lower = region
    columns = [_part(left, right, i, grid) for i in range(grid)]
    rows = [_part(upper, lower, i, grid) for i in range(grid)]
    return [(x_1, y_1, x_2, y_2) for y_1, y_2 in rows for x_1, x_2 in columns]


def nearest_part(rows: Ids, grid: int, k: int) -> Ids:
    """Of rows found for one query, nearest first, the first of each image, at most ``k``."""
    _, first = np.unique(rows // rows_per_image(grid), return_index=True)
    return np.sort(first)[:k]


def _part(start: int, stop: int, i: int, n: int) -> tuple[int, int]:
    begin = start + i * (stop - start) // n
    return begin, max(begin + 1, start + (i + 1) * (stop - start) // n)
