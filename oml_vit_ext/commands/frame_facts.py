"""What a dataframe says about a data set, as far as settings depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from oml.const import IS_GALLERY_COLUMN, LABELS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.messages import counted
from oml_vit_ext.datasets.frame import read_frame as frame_in
from oml_vit_ext.datasets.listing import TRAIN, VALIDATION


@dataclass(frozen=True)
class FrameFacts:
    """Numbers of photos and labels; per label the fewest and the median; the largest label, plus one (0 of names).

    A loss with a centre or proxy for each label needs so many: OML does not renumber labels, and where some of them are
    held out, those that stay have gaps.
    """

    train_photos: int
    train_labels: int
    classes: int
    fewest_per_label: int
    median_per_label: int
    validation_photos: int
    gallery_photos: int

    @classmethod
    def of(cls, frame: pd.DataFrame) -> FrameFacts:
        train, validation = frame[frame[SPLIT_COLUMN] == TRAIN], frame[frame[SPLIT_COLUMN] == VALIDATION]
        per_label = train[LABELS_COLUMN].value_counts()
        return cls(
            train_photos=len(train),
            train_labels=len(per_label),
            classes=int(per_label.index.max()) + 1 if per_label.index.dtype.kind in "iu" and len(per_label) else 0,
            fewest_per_label=int(per_label.min()) if len(per_label) else 0,
            median_per_label=int(np.median(per_label)) if len(per_label) else 0,
            validation_photos=len(validation),
            gallery_photos=int((validation[IS_GALLERY_COLUMN] == True).sum()),  # noqa: E712
        )

    def __str__(self) -> str:
        return (
            f"{counted(self.train_photos, 'training photo')} of {counted(self.train_labels, 'label')} (median "
            f"{self.median_per_label} each), {counted(self.validation_photos, 'validation photo')}"
        )


def read_frame(dataset_root: str | Path, dataframe_name: str) -> pd.DataFrame:
    """The dataframe of a config.

    Raises:
        FileNotFoundError: It is not there; the sentence says how to make it.
        ValueError: It is no table, or lacks columns of OML.
    """
    file = Path(dataset_root) / dataframe_name
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no dataframe {str(file)!r}: make it with oml-vit-ext convert folders "
            f"{dataset_root}, or say where it is: dataset_root=FOLDER dataframe_name=FILE."
        )
    return frame_in(file)
