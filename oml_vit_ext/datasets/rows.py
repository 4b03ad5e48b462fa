"""Changes of a dataframe's rows: what images and labels require."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.datasets.images import Size
from oml_vit_ext.datasets.listing import TRAIN


def with_sizes(frame: pd.DataFrame, sizes: Iterable[Size | str]) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the sizes, without the images that have none; and what was left out, with reasons."""
    sizes = list(sizes)
    good = np.array([isinstance(size, Size) for size in sizes], dtype=bool)
    left_out = [
        f"{path}: {size}" for path, size in zip(frame[PATHS_COLUMN], sizes, strict=True) if isinstance(size, str)
    ]
    frame = frame[good].reset_index(drop=True)
    known = [size for size in sizes if isinstance(size, Size)]
    for column, values in zip(Size._fields, zip(*known, strict=True), strict=True) if known else ():
        frame[column] = values
    if not known or not set(BBOXES_COLUMNS) <= set(frame):
        return frame, left_out
    frame = with_whole_boxes(frame)
    empty = (frame["x_1"] >= frame["x_2"]) | (frame["y_1"] >= frame["y_2"])
    left_out += [f"{path}: its box is empty or outside of the image" for path in frame[PATHS_COLUMN][empty]]
    return frame[~empty].reset_index(drop=True), left_out


def with_whole_boxes(frame: pd.DataFrame) -> pd.DataFrame:
    """Boxes cut at the borders of the images; rows without one get the whole image: the host expects all or none."""
    frame = frame.copy()
    for low, high, side in (("x_1", "x_2", "width"), ("y_1", "y_2", "height")):
        frame[low] = frame[low].fillna(0).clip(lower=0).astype(np.int64)
        frame[high] = np.minimum(frame[high].fillna(frame[side]), frame[side]).astype(np.int64)
    return frame


def without_single_labels(frame: pd.DataFrame) -> pd.DataFrame:
    train = frame[SPLIT_COLUMN] == TRAIN
    counts = frame[train].groupby(LABELS_COLUMN)[LABELS_COLUMN].transform("size")
    return frame.drop(counts.index[counts < 2]).reset_index(drop=True)


def without_lonely_queries(frame: pd.DataFrame) -> pd.DataFrame:
    """The host refuses queries whose label no gallery image has: broken images can leave some."""
    in_gallery = set(frame[LABELS_COLUMN][frame[IS_GALLERY_COLUMN] == True])  # noqa: E712
    lonely = (frame[IS_QUERY_COLUMN] == True) & ~frame[LABELS_COLUMN].isin(in_gallery)  # noqa: E712
    if lonely.any():
        warnings.warn(
            f"{int(lonely.sum())} queries are left out: the gallery has no image of their labels.", stacklevel=3
        )
    return frame[~lonely].reset_index(drop=True)
