"""From the folder of a data set to a dataframe of OML, checked on the way."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from oml.const import BBOXES_COLUMNS, PATHS_COLUMN, SPLIT_COLUMN
from oml.utils.dataframe_format import check_retrieval_dataframe_format

from oml_vit_ext.common.files import write_frame, write_lines
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.datasets.cleaning import (
    check_paths,
    extra_files,
    some,
    warn_of,
    with_sizes,
    without_lonely_queries,
    without_single_labels,
    wrong_counts,
)
from oml_vit_ext.datasets.folders import folders
from oml_vit_ext.datasets.landmarks import gldv2_clean, gldv2_noisy, nc_clean, roxford5k, rparis6k, sfm120k
from oml_vit_ext.datasets.listing import TRAIN, Listing
from oml_vit_ext.datasets.products import cars, cub, inshop, sop
from oml_vit_ext.images.reading import MISSING
from oml_vit_ext.images.sizes import look_at_images

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
    """Write the dataframe of a data set, with the names and columns of OML's converters.

    Beside OML's columns there are ``width`` and ``height``, the pixels of each image as stored, and ``turned``,
    whether its EXIF data ask to turn it by a quarter. Paths are relative to the folder of the data set, so it is what
    ``dataset_root`` of a config must name. Images that cannot be read are left out and listed in
    ``<output>.left_out.txt``; pairs of SfM-120k go to ``<output>.pairs.csv``.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the data set.
        output: The CSV file; ``df.csv`` in that folder unless given, ``df_with_bboxes.csv`` with ``boxes=True``.
        check: Compare the sizes with the papers' and refuse missing images. Without it, missing images are left out.
        decode: Read whole images instead of headers; finds files that were cut short.
        drop_single: Drop training labels with one image, which OML's sampler ``balance`` refuses. ``None``: as OML's
             converter of this data set does, that is for In-Shop.
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
        raise ValueError(wrong_counts(name, listing, differences))
    sizes = look_at_images(
        listing.root, listing.frame[PATHS_COLUMN].tolist(), decode=decode, n_threads=n_threads, verbose=verbose
    )
    missing = [path for path, size in zip(listing.frame[PATHS_COLUMN], sizes, strict=True) if size == MISSING]
    if missing and check:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(sizes)} images that {listing.source} lists are missing below {listing.root}: "
            f"{some(missing)}.{extra_files(listing)}"
        )
    extra = extra_files(listing) if check else ""
    if extra:
        warnings.warn(f"{name}:{extra}", stacklevel=2)
    frame, left_out = with_sizes(listing.frame, sizes)
    if drop_single if drop_single is not None else listing.drop_single:
        frame = without_single_labels(frame)
    frame = without_lonely_queries(frame)
    if frame.empty:
        raise ValueError(
            f"None of the {len(sizes)} images of {name} below {listing.root} can be read: {some(left_out)}."
        )
    warn_of(frame, left_out, name)
    check_retrieval_dataframe_format(frame, dataset_root=listing.root, verbose=False)
    write_frame(frame, output)
    write_lines(left_out, output.with_name(f"{output.stem}.left_out.txt"))
    if listing.pairs is not None:
        known = set(frame[PATHS_COLUMN])
        write_frame(
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
