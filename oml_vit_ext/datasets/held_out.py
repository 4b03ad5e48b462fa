"""A split of the training labels, to choose settings on without a look at the validation labels."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from oml.const import IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.files import write_frame
from oml_vit_ext.common.messages import counted, unknown_name
from oml_vit_ext.datasets.frame import read_frame
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION


def hold_out(dataframe: str | Path, output: str | Path, every: int = 3, by: str = LABELS_COLUMN) -> pd.DataFrame:
    """Write a dataframe of the training rows alone, in which some labels are for validation.

    Labels are taken evenly from their sorted list; each of their images is query and gallery. What was for validation
    before is left out: nothing chosen on the new dataframe has seen it.

    Args:
        dataframe: CSV file in OML's format.
        output: CSV file in the same folder, as paths stay as they are.
        every: One of so many training labels is held out, at least 2.
        by: Column whose values are held out. With ``category``, whole kinds are, together with all their labels: as it
            should be where what is searched later will be of other kinds than what was trained on.

    Raises:
        ValueError: The file is no dataframe of OML, ``every`` is too small, or there are fewer training labels than
            that; it has no column ``by``, or a label has several values in it.
    """
    check_whole("every", every, 2, why="some labels are left for training")
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
    held_out = df[by].isin(values[every - 1 :: every])
    df[SPLIT_COLUMN] = held_out.map({True: VALIDATION, False: TRAIN})
    for flag in (IS_QUERY_COLUMN, IS_GALLERY_COLUMN):
        df[flag] = held_out.map({True: True, False: None}).astype(object)
    write_frame(df, Path(output))
    return df
