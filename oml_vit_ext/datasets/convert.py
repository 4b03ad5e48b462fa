"""From the folder of a data set to a dataframe of OML, checked on the way."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from oml.const import BBOXES_COLUMNS, PATHS_COLUMN, SPLIT_COLUMN
from oml.utils.dataframe_format import check_retrieval_dataframe_format

from oml_vit_ext.common.files import write_frame, write_lines
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.datasets.cleaning import check_files, check_listing, cleaned
from oml_vit_ext.datasets.folders import folders
from oml_vit_ext.datasets.landmarks import gldv2_clean, gldv2_noisy, roxford5k, rparis6k, sfm120k
from oml_vit_ext.datasets.listing import TRAIN, Listing
from oml_vit_ext.datasets.nc_clean import nc_clean
from oml_vit_ext.datasets.products import cars, cub, inshop, sop
from oml_vit_ext.datasets.whereabouts import found_elsewhere
from oml_vit_ext.images.reading import MISSING
from oml_vit_ext.images.sizes import Size, look_at_images

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
    decode: bool | None = False,
    drop_single: bool | None = None,
    overwrite: bool = True,
    n_threads: int = 8,
    verbose: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Write the dataframe of a data set, with the names and columns of OML's converters.

    Beside OML's columns there are ``width`` and ``height``, the pixels of each image before any turn, and ``turned``,
    whether its EXIF data ask to turn it by a quarter. Paths are relative to the folder of the data set, so it is what
    ``dataset_root`` of a config must name. Images that cannot be read are left out and listed in
    ``<output>.left_out.txt``; pairs of SfM-120k go to ``<output>.pairs.csv``.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the data set.
        output: The CSV file; ``df.csv`` in that folder unless given, ``df_with_bboxes.csv`` with ``boxes=True``.
        check: Compare the sizes with the papers' and refuse missing images. Without it, missing images are left out.
        decode: Read whole images instead of headers; finds files that were cut short. ``None``: of up to 5 000 images.
        drop_single: Drop training labels with one image, which OML's sampler ``balance`` refuses. ``None``: as OML's
             converter of this data set does, that is for In-Shop.
        overwrite: Whether a dataframe that is there with other content, perhaps edited, may be replaced, and a file
            of the name of the list of those left out that is no such list.
        n_threads: Files are read by that many threads.
        verbose: Show progress.
        options: Those of the function of this name in this package, e.g. ``boxes=True``.

    Returns:
        The dataframe that was written.

    Raises:
        FileNotFoundError: Annotations or images are missing.
        FileExistsError: A dataframe with other content is there, and ``overwrite`` is not set.
        ValueError: ``name`` or an option is not known, the annotations are not those of this data set, sizes differ
            from the papers', or no image can be read.
    """
    listing = read_listing(name, root, **options)
    if listing.root.resolve() != Path(root).resolve():
        warnings.warn(f"{name} lies in {listing.root}: that is its dataset_root.", stacklevel=2)
    check_listing(name, listing, with_counts=check)
    output = listing.root / _default_name(listing) if output is None else Path(output)
    decode = len(listing.frame) <= _FEW if decode is None else decode
    listing, sizes = _looked_at(listing, decode=decode, n_threads=n_threads, verbose=verbose)
    if check:
        check_files(name, listing, sizes)
    drop_single = listing.drop_single if drop_single is None else drop_single
    frame, left_out = cleaned(name, listing, sizes, drop_single=drop_single)
    check_retrieval_dataframe_format(frame, dataset_root=listing.root, verbose=False)
    list_of_left_out = output.with_name(f"{output.stem}.left_out.txt")
    if not overwrite:
        _keep_other(output, frame)
        _keep_notes(list_of_left_out)
    write_frame(frame, output)
    if left_out or _is_ours(list_of_left_out):
        write_lines(left_out, list_of_left_out)
    if listing.pairs is not None:
        both_left = listing.pairs[["anchor", "positive"]].isin(set(frame[PATHS_COLUMN])).all(axis=1)
        write_frame(listing.pairs[both_left], output.with_name(f"{output.stem}.pairs.csv"))
    return frame


_FEW = 5_000  # images that are decoded within a minute or two


def _keep_other(output: Path, frame: pd.DataFrame) -> None:
    if output.exists() and output.read_text() != frame.to_csv(index=False):
        raise FileExistsError(
            f"{output} is there already with other content, perhaps edited by you: say --overwrite to replace it, or "
            f"--output FILE to write another one."
        )


def _is_ours(file: Path) -> bool:
    """Whether there is no such file, or each of its lines is an image and a reason."""
    return not file.exists() or all(": " in line for line in file.read_text(errors="replace").splitlines())


def _keep_notes(file: Path) -> None:
    """A file of this name whose lines are not those of :func:`convert` is somebody's own."""
    if not _is_ours(file):
        raise FileExistsError(
            f"{file} is there already and is no list of images that were left out: move it, or say --overwrite to "
            f"replace it."
        )


def _looked_at(listing: Listing, **how: Any) -> tuple[Listing, list[Size | str]]:
    """The sizes of the images; and the listing with the places of those that lie elsewhere than it says."""
    paths = listing.frame[PATHS_COLUMN].tolist()
    sizes = look_at_images(listing.root, paths, **how)
    moved = found_elsewhere(listing.root, [p for p, size in zip(paths, sizes, strict=True) if size == MISSING])
    if not moved:
        return listing, sizes
    again = dict(zip(moved, look_at_images(listing.root, list(moved.values()), **how), strict=True))
    sizes = [again.get(path, size) for path, size in zip(paths, sizes, strict=True)]
    pairs = listing.pairs
    if pairs is not None:
        pairs = pairs.assign(**{end: [moved.get(p, p) for p in pairs[end]] for end in ("anchor", "positive")})
    frame = listing.frame.assign(**{PATHS_COLUMN: [moved.get(path, path) for path in paths]})
    return replace(listing, frame=frame, pairs=pairs), sizes


def _default_name(listing: Listing) -> str:
    has_boxes = set(BBOXES_COLUMNS) <= set(listing.frame) and (listing.frame[SPLIT_COLUMN] == TRAIN).any()
    return "df_with_bboxes.csv" if has_boxes else "df.csv"


def read_listing(name: str, root: str | Path, **options: Any) -> Listing:
    """Read the annotations of a data set without looking at its images.

    Args:
        name: One of ``DATASETS``.
        root: Folder of the data set.
        options: As for :func:`convert`.

    Returns:
        The images with OML's columns, and what is known about the data set.

    Raises:
        FileNotFoundError: There is no such folder, or annotations are missing.
        FileExistsError: A dataframe with other content is there, and ``overwrite`` is not set.
        ValueError: ``name`` or an option is not known, or the annotations are not those of this data set.
    """
    if not isinstance(name, str) or name not in DATASETS:
        raise ValueError(unknown_name("data set", name, DATASETS))
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root} is not a folder: expected the folder of {name}.")
    accepted = list(inspect.signature(DATASETS[name]).parameters)[1:]
    for option in options:
        if option not in accepted:
            raise ValueError(unknown_name(f"option of {name}:", option, accepted))
    try:
        return DATASETS[name](Path(root), **options)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # damaged annotations end in errors of any kind
        if isinstance(error, ValueError) and (str(root) in str(error) or str(error).startswith(tuple(options))):
            raise  # it names the file, or the option
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"The annotations of {name} in {root} cannot be understood ({type(error).__name__}: {said}), expected "
            f"those that its authors publish."
        ) from error


list_images = read_listing
"""The former name of :func:`read_listing`; ``retrieval.list_images`` is another function."""
