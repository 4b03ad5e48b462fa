"""What can be wrong with the annotations of a data set, and how it is told."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.datasets.listing import TRAIN, VALIDATION, Listing
from oml_vit_ext.images.folders import image_files
from oml_vit_ext.images.sizes import Size


def check_paths(listing: Listing) -> None:
    """Raise a ``ValueError`` if a path leads out of the data set's folder or is in one split twice."""
    paths = [str(path) for path in listing.frame[PATHS_COLUMN]]
    suspects = [path for path in paths if ".." in path or "\\" in path or path.startswith("/")]
    outside = [p for p in suspects if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts or "\\" in p]
    if outside:
        raise ValueError(f"{listing.source} lists {outside[0]!r}, expected paths below {listing.root}.")
    twice = listing.frame.duplicated([PATHS_COLUMN, SPLIT_COLUMN])
    if twice.any():
        raise ValueError(
            f"{listing.source} lists {int(twice.sum())} images more than once, the first: {paths[int(twice.argmax())]}."
        )


def wrong_counts(name: str, listing: Listing, differences: list[str]) -> str:
    paths = listing.frame[PATHS_COLUMN].tolist()
    absent = [path for path in paths if not (listing.root / path).is_file()]
    missing = f" {len(absent)} listed images are missing: {some(absent)}." if absent else ""
    found = f"{listing.source} is not {name} as the papers have it: {'; '.join(differences)}."
    return found + missing + extra_files(listing)


def extra_files(listing: Listing) -> str:
    """A sentence on image files that are not listed, or nothing."""
    listed = set(listing.frame[PATHS_COLUMN])
    there = (path for folder in listing.image_folders for path in image_files(listing.root / folder))
    extra = [p for p in (path.relative_to(listing.root).as_posix() for path in there) if p not in listed]
    return f" {len(extra)} image files are not listed: {some(extra)}." if extra else ""


def warn_of(frame: pd.DataFrame, left_out: list[str], name: str) -> None:
    if left_out:
        warnings.warn(f"{name}: {len(left_out)} images are left out: {some(left_out)}.", stacklevel=3)
    by_split = frame.groupby(SPLIT_COLUMN)[LABELS_COLUMN].unique()
    shared = set(by_split.get(TRAIN, [])) & set(by_split.get(VALIDATION, []))
    if shared:
        warnings.warn(
            f"{name}: {len(shared)} labels are in the training and in the validation set (the first: {min(shared)}), "
            f"so validation does not measure retrieval of unseen classes.",
            stacklevel=3,
        )


def some(items: list[str], limit: int = 3) -> str:
    return "; ".join(items[:limit]) + (f"; and {len(items) - limit} more" if len(items) > limit else "")


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
    """Boxes cut at the borders of the images; rows without one get the whole image: OML expects all or none."""
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
    """OML refuses queries whose label no gallery image has: broken images can leave some."""
    in_gallery = set(frame[LABELS_COLUMN][frame[IS_GALLERY_COLUMN] == True])  # noqa: E712
    lonely = (frame[IS_QUERY_COLUMN] == True) & ~frame[LABELS_COLUMN].isin(in_gallery)  # noqa: E712
    if lonely.any():
        warnings.warn(
            f"{int(lonely.sum())} queries are left out: the gallery has no image of their labels.", stacklevel=3
        )
    return frame[~lonely].reset_index(drop=True)
