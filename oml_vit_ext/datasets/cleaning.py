"""What can be wrong with the rows of a data set, and what is done about it: refused, left out, or told."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.messages import by_reason, counted, some
from oml_vit_ext.common.queries import lonely_queries
from oml_vit_ext.datasets.boxes import out_of_square, with_whole_boxes
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION, Listing
from oml_vit_ext.images.folders import image_files
from oml_vit_ext.images.reading import MISSING
from oml_vit_ext.images.sizes import Size

Sizes = Sequence[Size | str]  # of each row's image: its size, or why it has none

_ONLY = ("validation image is the only one of its label", "validation images are the only ones of their labels")


def check_listing(name: str, listing: Listing, *, with_counts: bool) -> None:
    """What the annotations alone show.

    Raises:
        ValueError: A path leads out of the data set's folder or is in one split twice; or, ``with_counts``, the data
            set is not as large as its papers say.
    """
    paths = [str(path) for path in listing.frame[PATHS_COLUMN]]
    annotated = listing.source.is_file()  # else the paths are those of files that were found
    suspects = [p for p in paths if annotated and (".." in p or "\\" in p or p.startswith("/"))]
    outside = [p for p in suspects if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts or "\\" in p]
    if outside:
        raise ValueError(f"{listing.source} lists {outside[0]!r}, expected paths below {listing.root}.")
    twice = listing.frame.duplicated([PATHS_COLUMN, SPLIT_COLUMN])
    if twice.any():
        raise ValueError(
            f"{listing.source} lists {counted(int(twice.sum()), 'image')} more than once, the first: "
            f"{paths[int(twice.argmax())]}."
        )
    differences = listing.counts.differences(listing.frame) if with_counts else []
    if differences:
        absent = [path for path in paths if not (listing.root / path).is_file()]
        missing = (
            f" {counted(len(absent), 'listed image is', 'listed images are')} missing: {some(absent)}."
            if absent
            else ""
        )
        found = f"{listing.source} is not {name} as the papers have it: {'; '.join(differences)}."
        raise ValueError(found + missing + _unlisted(listing))


def check_files(name: str, listing: Listing, sizes: Sizes) -> None:
    """All listed images should be there, and all images should be listed.

    Raises:
        FileNotFoundError: A listed image is missing.
    """
    missing = [path for path, size in zip(listing.frame[PATHS_COLUMN], sizes, strict=True) if size == MISSING]
    unlisted = _unlisted(listing)
    if missing:
        raise FileNotFoundError(
            f"{len(missing):,} of the {counted(len(sizes), 'image')} that {listing.source} lists "
            f"{'is' if len(missing) == 1 else 'are'} missing below {listing.root}: {some(missing)}. check=False "
            f"(--no-check) takes those that are there.{unlisted}"
        )
    if unlisted:
        warnings.warn(f"{name}:{unlisted}", stacklevel=3)


def cleaned(name: str, listing: Listing, sizes: Sizes, *, drop_single: bool) -> tuple[pd.DataFrame, list[str]]:
    """The rows that OML can use, with the sizes of their images; and the images that are left out, with reasons.

    Warns:
        Of images and queries that are left out, and of labels in both splits.

    Raises:
        ValueError: No image is left.
    """
    frame, left_out = with_sizes(listing.frame, sizes, listing.square_of_boxes)
    frame = without_single_labels(frame) if drop_single else frame
    frame, n_lonely = without_lonely_queries(frame)
    frame, not_asked = without_single_questions(frame)
    if frame.empty:
        raise ValueError(
            f"None of the {counted(len(sizes), 'image')} of {name} below {listing.root} can be read: {some(left_out)}."
        )
    if left_out:
        warnings.warn(
            f"{name}: {counted(len(left_out), 'image is', 'images are')} left out: {by_reason(left_out)}.", stacklevel=3
        )
    if n_lonely:
        warnings.warn(
            f"{name}: {counted(n_lonely, 'query is', 'queries are')} left out: the gallery has no image of the same "
            f"label.",
            stacklevel=3,
        )
    if not_asked:
        warnings.warn(
            f"{name}: {counted(len(not_asked), *_ONLY)}, hence no query, but in the gallery: {some(not_asked)}.",
            stacklevel=3,
        )
    validation = frame[frame[SPLIT_COLUMN] == VALIDATION]
    if len(validation) and not (validation[IS_QUERY_COLUMN] == True).any():  # noqa: E712
        warnings.warn(f"{name}: the validation set has no query, so no metric can be computed on it.", stacklevel=3)
    shared = shared_labels(frame)
    if shared:
        warnings.warn(
            f"{name}: {counted(len(shared), 'label is', 'labels are')} in the training and in the validation set (the "
            f"first: {shared[0]}), "
            f"so validation does not measure retrieval of unseen classes.",
            stacklevel=3,
        )
    return frame, left_out


def with_sizes(frame: pd.DataFrame, sizes: Sizes, square: int | None = None) -> tuple[pd.DataFrame, list[str]]:
    """The frame with the sizes, without the images that have none; and what was left out, with reasons.

    Args:
        frame: Images of a data set.
        sizes: Of each.
        square: See ``Listing.square_of_boxes``.
    """
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
    frame = with_whole_boxes(frame if square is None else out_of_square(frame, square))
    empty = (frame["x_1"] >= frame["x_2"]) | (frame["y_1"] >= frame["y_2"])
    left_out += [f"{path}: its box is empty or outside of the image" for path in frame[PATHS_COLUMN][empty]]
    return frame[~empty].reset_index(drop=True), left_out


def without_single_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the training labels that have one image: OML's sampler ``balance`` refuses them."""
    train = frame[SPLIT_COLUMN] == TRAIN
    counts = frame[train].groupby(LABELS_COLUMN)[LABELS_COLUMN].transform("size")
    return frame.drop(counts.index[counts < 2]).reset_index(drop=True)


def without_lonely_queries(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Without the queries whose label no gallery image has, which OML refuses, and how many they are."""
    lonely = lonely_queries(frame) & (frame[IS_GALLERY_COLUMN] != True)  # noqa: E712
    return frame[~lonely].reset_index(drop=True), int(lonely.sum())


def without_single_questions(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Queries that are themselves the only gallery image of their label are queries no more; and which they are."""
    single = lonely_queries(frame)
    frame = frame.copy()
    frame.loc[single, IS_QUERY_COLUMN] = False
    return frame, [str(path) for path in frame[PATHS_COLUMN][single]]


def shared_labels(frame: pd.DataFrame) -> list[int]:
    """Labels that are in the training and in the validation set, in order."""
    train, validation = (set(frame[LABELS_COLUMN][frame[SPLIT_COLUMN] == split]) for split in (TRAIN, VALIDATION))
    return sorted(train & validation)


def _unlisted(listing: Listing) -> str:
    """A sentence on image files that are not listed, or nothing."""
    listed = set(listing.frame[PATHS_COLUMN])
    there = (path for folder in listing.image_folders for path in image_files(listing.root / folder))
    unlisted = [p for p in (path.relative_to(listing.root).as_posix() for path in there) if p not in listed]
    return (
        f" {counted(len(unlisted), 'image file is', 'image files are')} not listed: {some(unlisted)}."
        if unlisted
        else ""
    )
