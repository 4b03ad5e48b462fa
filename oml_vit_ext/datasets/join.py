"""Training rows of one dataframe, validation rows of another."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pandas as pd
from oml.const import BBOXES_COLUMNS, IS_GALLERY_COLUMN, IS_QUERY_COLUMN, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.files import write_frame
from oml_vit_ext.datasets.boxes import with_whole_boxes
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION

_FLAGS = (IS_QUERY_COLUMN, IS_GALLERY_COLUMN)


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
        [part.reindex(columns=columns).astype(dict.fromkeys(_FLAGS, object)) for part in parts], ignore_index=True
    )
    frame = with_whole_boxes(frame) if boxed else frame
    for flag in _FLAGS:
        frame.loc[frame[SPLIT_COLUMN] == TRAIN, flag] = None
    write_frame(frame, output)
    return frame


def _moved(paths: pd.Series, old: Path, new: Path) -> list[str]:
    old, new = Path(os.path.abspath(old)), Path(os.path.abspath(new))
    if not old.is_relative_to(new):
        raise ValueError(f"The data set in {old} does not lie below {new}, the folder of the joined dataframe.")
    outside = [p for p in map(str, paths) if PurePosixPath(p).is_absolute() or ".." in PurePosixPath(p).parts]
    if outside:
        raise ValueError(f"The dataframe of {old} lists {outside[0]!r}, expected paths below that folder.")
    prefix = old.relative_to(new).as_posix()
    return paths.tolist() if prefix == "." else [f"{prefix}/{path}" for path in paths]
