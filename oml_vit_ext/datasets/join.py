"""Training rows of one dataframe, validation rows of another."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.arrays import whole_numbers
from oml_vit_ext.common.files import write_frame
from oml_vit_ext.datasets.boxes import with_whole_boxes
from oml_vit_ext.datasets.frame import check_no_source, read_frame
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION
from oml_vit_ext.images.sizes import read_image_sizes

_FLAGS = (IS_QUERY_COLUMN, IS_GALLERY_COLUMN)


def join(train: str | Path, validation: str | Path, output: str | Path) -> pd.DataFrame:
    """One dataframe with the training rows of one and the validation rows of another, for training on landmark sets.

    Paths become relative to the folder of ``output``, which is then ``dataset_root``: choose one above both data sets.
    Labels of the validation rows are moved up so that no label is in both. If only one of them has boxes, the other's
    are whole images, whose sizes are read from the files if the dataframe does not hold them. Of the other columns,
    those that both have are kept.

    Raises:
        ValueError: One is no dataframe of OML, is ``output``, or has no such rows, an image does not lie below the
            folder of ``output``, or an image whose size is needed cannot be read.
    """
    output = Path(output)
    check_no_source(output, train, validation)
    parts = []
    for file, split in ((Path(train), TRAIN), (Path(validation), VALIDATION)):
        df = read_frame(file)
        rows = df[df[SPLIT_COLUMN] == split]
        if rows.empty:
            raise ValueError(f"{file} has no rows of the split {split!r}.")
        rows = rows.assign(**{LABELS_COLUMN: whole_numbers(rows[LABELS_COLUMN], f"The labels of {file}")})
        parts.append(rows.assign(**{PATHS_COLUMN: _moved(rows[PATHS_COLUMN], file.parent, output.parent)}))
    parts[1] = parts[1].assign(
        **{LABELS_COLUMN: parts[1][LABELS_COLUMN] - parts[1][LABELS_COLUMN].min() + parts[0][LABELS_COLUMN].max() + 1}
    )
    if any(set(BBOXES_COLUMNS) <= set(part) for part in parts):
        parts = [_with_a_box_each(part, output.parent) for part in parts]
    columns = [name for name in parts[0].columns if name in parts[1].columns]
    frame = pd.concat([part[columns].astype(dict.fromkeys(_FLAGS, object)) for part in parts], ignore_index=True)
    for flag in _FLAGS:
        frame.loc[frame[SPLIT_COLUMN] == TRAIN, flag] = None
    write_frame(frame, output)
    return frame


def _with_a_box_each(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """OML expects a box in every row or in none. Rows that all have one are left as they are."""
    rows = rows if set(BBOXES_COLUMNS) <= set(rows) else rows.assign(**dict.fromkeys(BBOXES_COLUMNS, float("nan")))
    if not rows[BBOXES_COLUMNS].isna().any(axis=None):
        return rows
    if not {"width", "height"} <= set(rows):
        width, height, turned = read_image_sizes(rows[PATHS_COLUMN].tolist(), root)
        rows = rows.assign(width=width, height=height, turned=turned)
    return with_whole_boxes(rows)


def _moved(paths: pd.Series, old: Path, new: Path) -> list[str]:
    old, new = Path(os.path.abspath(old)), Path(os.path.abspath(new))
    if not old.is_relative_to(new):
        raise ValueError(f"The data set in {old} does not lie below {new}, the folder of the joined dataframe.")
    outside = [p for p in map(str, paths) if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts]
    if outside:
        raise ValueError(f"The dataframe of {old} lists {outside[0]!r}, expected paths below that folder.")
    prefix = old.relative_to(new).as_posix()
    return paths.tolist() if prefix == "." else [f"{prefix}/{path}" for path in paths]
