"""Boxes of annotations on the images that are used: scaled, cut at the borders, whole where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_SIDES = (("x_1", "x_2"), ("y_1", "y_2"))


def upright_sides(frame: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Width and height ``(N,)`` in pixels of the images as a viewer shows them."""
    width, height = frame["width"].to_numpy(np.int64), frame["height"].to_numpy(np.int64)
    turned = frame["turned"].to_numpy(bool) if "turned" in frame else np.zeros(len(frame), dtype=bool)
    return np.where(turned, height, width), np.where(turned, width, height)


def out_of_square(frame: pd.DataFrame, side: int) -> pd.DataFrame:
    """Boxes of images that were fitted into the middle of a square, as boxes of the images themselves.

    Args:
        frame: With boxes in pixels of the square, and the sizes of the images.
        side: Of the square, in pixels.
    """
    width, height = upright_sides(frame)
    scale = side / np.maximum(width, height)
    frame = frame.copy()
    for columns, extent in zip(_SIDES, (width, height), strict=True):
        margin = (side - extent * scale) / 2
        for column in columns:
            frame[column] = np.rint((frame[column] - margin) / scale)
    return frame


def with_whole_boxes(frame: pd.DataFrame) -> pd.DataFrame:
    """Boxes cut at the borders of the images; rows without one get the whole image: OML expects all or none."""
    frame = frame.copy()
    for (low, high), side in zip(_SIDES, upright_sides(frame), strict=True):
        frame[low] = frame[low].fillna(0).clip(lower=0).astype(np.int64)
        frame[high] = np.minimum(frame[high].fillna(pd.Series(side, index=frame.index)), side).astype(np.int64)
    return frame
