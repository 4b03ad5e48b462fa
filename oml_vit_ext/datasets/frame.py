"""A dataframe of OML as somebody has written it: read, and what OML would refuse in it, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.messages import counted, some
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION, read_table

COLUMNS = (LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN, IS_QUERY_COLUMN, IS_GALLERY_COLUMN)


def read_frame(file: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """The dataframe of a CSV file.

    Args:
        file: In UTF-8, separated by commas.
        columns: That it must have.

    Raises:
        ValueError: It is no such file, or a column is not there; the sentence names the file and what it has.
    """
    frame = read_table(file, index_col=False)
    lacking = [column for column in columns if column not in frame]
    if lacking:
        found = ", ".join(map(str, frame.columns))
        raise ValueError(
            f"{str(file)!r} has no column {lacking[0]!r} but {found:.80}, expected a dataframe of "
            f"open-metric-learning, separated by commas."
        )
    return frame


def check_no_source(output: Path, *sources: str | Path) -> None:
    """Raise a ``ValueError`` if what is to be written is one of the files that it is made of: rows would be lost."""
    for source in map(Path, sources):
        if output.exists() and source.exists() and output.samefile(source):
            raise ValueError(f"output is {str(output)!r}, expected another file than the one that is read: it stays.")


def frame_mistakes(frame: pd.DataFrame) -> Iterator[str]:
    """What is wrong with the values of a dataframe; OML ends in an assertion without a sentence on each of these.

    Args:
        frame: With ``COLUMNS``.
    """
    split = frame[SPLIT_COLUMN]
    yield from _wrong(frame, SPLIT_COLUMN, ~split.isin([TRAIN, VALIDATION]), f"{TRAIN!r} or {VALIDATION!r}")
    yield from _wrong(frame, PATHS_COLUMN, frame[PATHS_COLUMN].isna(), "the path of a photo")
    yield from _label_mistakes(frame)
    for flag in (IS_QUERY_COLUMN, IS_GALLERY_COLUMN):
        values = frame[flag]
        yield from _wrong(frame, flag, (split == TRAIN) & values.notna(), "an empty cell in rows for training")
        is_flag = values.map(lambda value: value is True or value is False or value in (0, 1))
        yield from _wrong(frame, flag, (split == VALIDATION) & ~is_flag, "True or False in rows for validation")
    is_query, is_gallery = frame[IS_QUERY_COLUMN] == True, frame[IS_GALLERY_COLUMN] == True  # noqa: E712
    for flag, of_rows in ((IS_QUERY_COLUMN, is_query), (IS_GALLERY_COLUMN, is_gallery)):
        if (split == VALIDATION).any() and not of_rows.any():
            yield f"no row for validation has {flag} True, so no metric can be computed."
    idle = (split == VALIDATION) & (frame[IS_QUERY_COLUMN] == False) & (frame[IS_GALLERY_COLUMN] == False)  # noqa: E712
    yield from _wrong(frame, IS_QUERY_COLUMN, idle, f"True here or in {IS_GALLERY_COLUMN}")
    if is_gallery.any():
        hopeless = is_query & ~frame[LABELS_COLUMN].isin(frame[LABELS_COLUMN][is_gallery])
        yield from _wrong(frame, LABELS_COLUMN, hopeless, "of a query one that a gallery photo has")
    yield from _box_mistakes(frame)


def _box_mistakes(frame: pd.DataFrame) -> Iterator[str]:
    given = [column for column in BBOXES_COLUMNS if column in frame]
    if not given:
        return
    if len(given) < len(BBOXES_COLUMNS):
        yield f"there are the columns {', '.join(given)} of a box, expected none or {', '.join(BBOXES_COLUMNS)}."
        return
    boxes = frame[list(BBOXES_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    is_box = boxes.notna().all(axis=1)
    for column in BBOXES_COLUMNS:
        bad = boxes[column].isna() | (boxes[column] % 1 != 0) | (boxes[column] < 0)
        # OML's check lets empty cells pass, its data sets do not.
        yield from _wrong(frame, column, bad, "whole numbers of pixels from 0 on in each row, of whole images too")
    for low, high in (("x_1", "x_2"), ("y_1", "y_2")):
        yield from _wrong(frame, high, is_box & (boxes[high] <= boxes[low]), f"more than {low}")


def _label_mistakes(frame: pd.DataFrame) -> Iterator[str]:
    labels = frame[LABELS_COLUMN]
    if labels.dtype.kind in "iu" or labels.empty:
        return
    expected = "whole numbers without a point, one for each label; pandas.factorize makes them of names"
    is_missing = labels.isna()
    if labels.dtype.kind == "f" and is_missing.any() and (labels[~is_missing] % 1 == 0).all():
        yield from _wrong(frame, LABELS_COLUMN, is_missing, "a number in each row")
    else:
        yield from _wrong(frame, LABELS_COLUMN, pd.Series(True, index=frame.index), expected)


def _wrong(frame: pd.DataFrame, column: str, where: pd.Series, expected: str) -> Iterator[str]:
    if not where.any():
        return
    values = [repr(value) for value in pd.unique(frame[column][where])]
    first = frame[where].iloc[0]
    place = f"line {int(np.flatnonzero(where)[0]) + 2}, {first[PATHS_COLUMN]}"
    yield f"{column} is {some(values)} in {counted(int(where.sum()), 'row')} (the first: {place}), expected {expected}."
