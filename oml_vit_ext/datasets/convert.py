"""From the folder of a data set to a dataframe of the host, checked on the way."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from oml.const import (
    BBOXES_COLUMNS,
    IS_GALLERY_COLUMN,
    IS_QUERY_COLUMN,
    LABELS_COLUMN,
    PATHS_COLUMN,
    SPLIT_COLUMN,
)
from oml.utils.dataframe_format import check_retrieval_dataframe_format

from oml_vit_ext.datasets.images import MISSING, Size, image_files, look_at_images
from oml_vit_ext.datasets.landmarks import gldv2_clean, gldv2_noisy, nc_clean, rparis6k, roxford5k, sfm120k
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION, Listing
from oml_vit_ext.datasets.products import cars, cub, inshop, sop
from oml_vit_ext.datasets.tree import folders
from oml_vit_ext.messages import unknown_name

DATASETS: dict[str, Callable[..., Listing]] = {
    "sop": sop,
    "cub": cub,
    "inshop": inshop,
    "cars": cars,
    "sfm120k": sfm120k,
    "nc_clean": nc_clean,
    "gldv2_clean": gldv2_clean,
    "gldv2_noisy": gldv2_noisy,
    "roxford5k": roxford5k,
    "rparis6k": rparis6k,
    "folders": folders,
}


def convert(
    name: str,
    root: str | Path,
    *,
    output: str | Path | None = None,
    check: bool = True,
    decode: bool = False,
    drop_single: bool | None = None,
    n_threads: int = 8,
    verbose: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Write the dataframe of a data set, with the names and columns of the host's converters.

    Beside the host's columns there are ``width`` and ``height``, the pixels of each image as stored, and ``turned``,
    whether its EXIF data ask to turn it by a quarter. Paths are relative to the folder of the data set, so it is what
    ``dataset_root`` of a config must name. Images that cannot be read are left out and listed in
    ``<output>.left_out.txt``; pairs of SfM-120k go to ``<output>.pairs.csv``.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the data set.
        output: The CSV file; ``df.csv`` in that folder unless given, ``df_with_bboxes.csv`` with boxes of training rows.
        check: Compare the sizes with the papers' and refuse missing images. Without it, missing images are left out.
        decode: Read whole images instead of headers; finds files that were cut short.
        drop_single: Drop training labels with one image, which the host's sampler ``balance`` refuses. ``None``: as the
            host's converter of this data set does, that is for In-Shop.
        n_threads: Files are read by that many threads.
        verbose: Show progress.
        options: Those of the function of this name in this package, e.g. ``boxes=True``.

    Returns:
        The dataframe that was written.

    Raises:
        FileNotFoundError: Annotations or images are missing.
        ValueError: ``name`` or an option is not known, the annotations are not those of this data set, sizes differ
            from the papers', or no image can be read.
    """
    listing = list_images(name, root, **options)
    has_boxes = set(BBOXES_COLUMNS) <= set(listing.frame) and (listing.frame[SPLIT_COLUMN] == TRAIN).any()
    output = Path(output) if output is not None else listing.root / ("df_with_bboxes.csv" if has_boxes else "df.csv")
    check_paths(listing)
    differences = listing.counts.differences(listing.frame) if check else []
    if differences:
        raise ValueError(_wrong_counts(name, listing, differences))
    sizes = look_at_images(
        listing.root, listing.frame[PATHS_COLUMN].tolist(), decode=decode, n_threads=n_threads, verbose=verbose
    )
    missing = [path for path, size in zip(listing.frame[PATHS_COLUMN], sizes, strict=True) if size == MISSING]
    if missing and check:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(sizes)} images that {listing.source} lists are missing below {listing.root}: "
            f"{_some(missing)}.{_extra(listing)}"
        )
    frame, left_out = with_sizes(listing.frame, sizes)
    if drop_single if drop_single is not None else listing.drop_single:
        frame = _without_single_labels(frame)
    frame = _without_lonely_queries(frame)
    if frame.empty:
        raise ValueError(
            f"None of the {len(sizes)} images of {name} below {listing.root} can be read: {_some(left_out)}."
        )
    _warn(frame, left_out, name)
    check_retrieval_dataframe_format(frame, dataset_root=listing.root, verbose=False)
    _write(frame, output)
    _write_or_remove(left_out, output.with_name(f"{output.stem}.left_out.txt"))
    if listing.pairs is not None:
        known = set(frame[PATHS_COLUMN])
        _write(
            listing.pairs[listing.pairs["anchor"].isin(known) & listing.pairs["positive"].isin(known)],
            output.with_name(f"{output.stem}.pairs.csv"),
        )
    return frame


def list_images(name: str, root: str | Path, **options: Any) -> Listing:
    """Read the annotations of a data set without looking at its images. Errors as for :func:`convert`."""
    if name not in DATASETS:
        raise ValueError(unknown_name("data set", name, DATASETS))
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder: expected the folder of {name}.")
    accepted = list(inspect.signature(DATASETS[name]).parameters)[1:]
    for option in options:
        if option not in accepted:
            raise ValueError(unknown_name(f"option of {name}:", option, accepted))
    return DATASETS[name](Path(root), **options)


def join(train: str | Path, validation: str | Path, output: str | Path) -> pd.DataFrame:
    """One dataframe with the training rows of one and the validation rows of another, for training on landmark sets.

    Paths become relative to the folder of ``output``, which is then ``dataset_root``: choose one above both data sets.
    Labels of the validation rows are moved up so that no label is in both. If only one of them has boxes, the other's
    are whole images. Of the other columns, those that both have are kept.

    Raises:
        ValueError: One has no such rows, or an image does not lie below the folder of ``output``.
    """
    output = Path(output)
    parts = []
    for file, split in ((Path(train), TRAIN), (Path(validation), VALIDATION)):
        df = pd.read_csv(file, index_col=False)
        rows = df[df[SPLIT_COLUMN] == split]
        if rows.empty:
            raise ValueError(f"{file} has no rows of the split {split!r}.")
        parts.append(rows.assign(**{PATHS_COLUMN: _moved(rows[PATHS_COLUMN], file.parent, output.parent)}))
    parts[1] = parts[1].assign(
        **{LABELS_COLUMN: parts[1][LABELS_COLUMN] - parts[1][LABELS_COLUMN].min() + parts[0][LABELS_COLUMN].max() + 1}
    )
    sized = all({"width", "height"} <= set(part) for part in parts)
    boxed = sized and any(set(BBOXES_COLUMNS) <= set(part) for part in parts)
    columns = [name for name in parts[0].columns if name in parts[1].columns and name not in BBOXES_COLUMNS]
    columns += BBOXES_COLUMNS if boxed else []
    frame = pd.concat(
        [part.reindex(columns=columns).astype({c: object for c in _FLAGS}) for part in parts], ignore_index=True
    )
    frame = with_whole_boxes(frame) if boxed else frame
    for flag in _FLAGS:
        frame.loc[frame[SPLIT_COLUMN] == TRAIN, flag] = None
    _write(frame, output)
    return frame


_FLAGS = (IS_QUERY_COLUMN, IS_GALLERY_COLUMN)


def check_paths(listing: Listing) -> None:
    """Raise a ``ValueError`` if a path leads out of the data set's folder or is in one split twice."""
    paths = listing.frame[PATHS_COLUMN].astype(str)
    suspects = paths[
        paths.str.contains("..", regex=False) | paths.str.startswith("/") | paths.str.contains("\\", regex=False)
    ]
    outside = [p for p in suspects if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts or "\\" in p]
    if outside:
        raise ValueError(f"{listing.source} lists {outside[0]!r}, expected paths below {listing.root}.")
    twice = listing.frame.duplicated([PATHS_COLUMN, SPLIT_COLUMN])
    if twice.any():
        raise ValueError(
            f"{listing.source} lists {int(twice.sum())} images more than once, the first: {paths[twice].iloc[0]}."
        )


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


def _without_single_labels(frame: pd.DataFrame) -> pd.DataFrame:
    train = frame[SPLIT_COLUMN] == TRAIN
    counts = frame[train].groupby(LABELS_COLUMN)[LABELS_COLUMN].transform("size")
    return frame.drop(counts.index[counts < 2]).reset_index(drop=True)


def _without_lonely_queries(frame: pd.DataFrame) -> pd.DataFrame:
    """The host refuses queries whose label no gallery image has: broken images can leave some."""
    in_gallery = set(frame[LABELS_COLUMN][frame[IS_GALLERY_COLUMN] == True])  # noqa: E712
    lonely = (frame[IS_QUERY_COLUMN] == True) & ~frame[LABELS_COLUMN].isin(in_gallery)  # noqa: E712
    if lonely.any():
        warnings.warn(
            f"{int(lonely.sum())} queries are left out: the gallery has no image of their labels.", stacklevel=3
        )
    return frame[~lonely].reset_index(drop=True)


def _warn(frame: pd.DataFrame, left_out: list[str], name: str) -> None:
    if left_out:
        warnings.warn(f"{name}: {len(left_out)} images are left out: {_some(left_out)}.", stacklevel=3)
    by_split = frame.groupby(SPLIT_COLUMN)[LABELS_COLUMN].unique()
    shared = set(by_split.get(TRAIN, [])) & set(by_split.get(VALIDATION, []))
    if shared:
        warnings.warn(
            f"{name}: {len(shared)} labels are in the training and in the validation set (the first: {min(shared)}), so "
            f"validation does not measure retrieval of unseen classes.",
            stacklevel=3,
        )


def _wrong_counts(name: str, listing: Listing, differences: list[str]) -> str:
    paths = listing.frame[PATHS_COLUMN].tolist()
    absent = [path for path in paths if not (listing.root / path).is_file()]
    missing = f" {len(absent)} listed images are missing: {_some(absent)}." if absent else ""
    return f"{listing.source} is not {name} as the papers have it: {'; '.join(differences)}.{missing}{_extra(listing)}"


def _extra(listing: Listing) -> str:
    """A sentence on image files that are not listed, or nothing."""
    listed = set(listing.frame[PATHS_COLUMN])
    there = (path for folder in listing.image_folders for path in image_files(listing.root / folder))
    extra = [p for p in (path.relative_to(listing.root).as_posix() for path in there) if p not in listed]
    return f" {len(extra)} image files are not listed: {_some(extra)}." if extra else ""


def _some(items: list[str], limit: int = 3) -> str:
    return "; ".join(items[:limit]) + (f"; and {len(items) - limit} more" if len(items) > limit else "")


def _moved(paths: pd.Series, old: Path, new: Path) -> list[str]:
    old, new = Path(os.path.abspath(old)), Path(os.path.abspath(new))
    if not old.is_relative_to(new):
        raise ValueError(f"The data set in {old} does not lie below {new}, the folder of the joined dataframe.")
    prefix = old.relative_to(new).as_posix()
    return paths.tolist() if prefix == "." else [f"{prefix}/{path}" for path in paths]


def _write(frame: pd.DataFrame, file: Path) -> None:
    """The file is replaced as a whole: whoever interrupts never leaves half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        frame.to_csv(unfinished, index=False)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_or_remove(lines: list[str], file: Path) -> None:
    if not lines:
        file.unlink(missing_ok=True)
        return
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.part")
    unfinished.write_text("\n".join(lines) + "\n")
    os.replace(unfinished, file)
