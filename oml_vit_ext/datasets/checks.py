"""What can be wrong with the annotations of a data set, and how it is told."""

from __future__ import annotations

import warnings
from pathlib import PurePosixPath

import pandas as pd
from oml.const import LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.datasets.images import image_files
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION, Listing


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
