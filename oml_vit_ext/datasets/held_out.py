"""A split of the training labels, to choose settings on without a look at the validation labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from oml.const import IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.files import write_frame
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.datasets.frame import check_no_source, read_frame
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION


def hold_out(
    dataframe: str | Path,
    output: str | Path,
    every: int = 3,
    by: str = LABELS_COLUMN,
    *,
    part: int | None = None,
    gallery: int | None = None,
) -> pd.DataFrame:
    """Write a dataframe of the training rows alone, in which some labels are for validation.

    Labels are taken evenly from their sorted list; each of their images is a query. What was for validation before is
    left out: nothing chosen on the new dataframe has seen it.

    Args:
        dataframe: CSV file in OML's format.
        output: CSV file in the same folder, as paths stay as they are.
        every: One of so many training labels is held out, at least 2.
        by: Column whose values are held out. With ``category``, whole kinds are, together with all their labels: as it
            should be where what is searched later will be of other kinds than what was trained on.
        part: Which of the ``every`` parts is held out, from 1; the last one unless given. With each of them in turn,
            every training label is held out once.
        gallery: At most so many images of each label are searched, spread over its list; all unless given. Among all
            images of a label that has many, a trained first stage hardly errs, and nothing can be fitted on it.

    Raises:
        ValueError: The file is no dataframe of OML, or is ``output``; a number is too small or too large, or there are
            fewer training labels than ``every``; it has no column ``by``, or a label has several values in it.
    """
    check_whole("every", every, 2, why="some labels are left for training")
    part = every if part is None else check_whole("part", part, 1, every)
    if gallery is not None:
        check_whole("gallery", gallery, 2, why="each query is searched among others of its label")
    check_no_source(Path(output), dataframe)
    df = read_frame(Path(dataframe))
    df = df[df[SPLIT_COLUMN] == TRAIN].reset_index(drop=True)
    if by not in df:
        raise ValueError(unknown_name(f"column of {dataframe}:", by, df.columns))
    torn = df.groupby(LABELS_COLUMN)[by].nunique(dropna=False)
    if (torn > 1).any():
        raise ValueError(
            f"by is {by!r}, but label {torn.idxmax()} has {torn.max()} values of it, expected one for each label."
        )
    values = sorted(df[by].unique(), key=str if by != LABELS_COLUMN else None)
    if len(values) < every:
        what, of = ("label", "") if by == LABELS_COLUMN else ("value", f" of {by!r}")
        raise ValueError(
            f"{dataframe} has {counted(len(values), f'training {what}')}{of}, expected at least every={every}."
        )
    held_out = df[by].isin(values[part - 1 :: every])
    df[SPLIT_COLUMN] = held_out.map({True: VALIDATION, False: TRAIN})
    for flag in (IS_QUERY_COLUMN, IS_GALLERY_COLUMN):
        df[flag] = held_out.map({True: True, False: None}).astype(object)
    if gallery is not None:
        rows = df.index[held_out]
        place = df.loc[rows].groupby(LABELS_COLUMN).cumcount()
        n_images = df.loc[rows].groupby(LABELS_COLUMN)[LABELS_COLUMN].transform("size")
        # Bresenham's line: of n images in a row, as many as wanted, evenly.
        df.loc[rows, IS_GALLERY_COLUMN] = (place * gallery) % n_images < gallery
    write_frame(df, Path(output))
    return df
