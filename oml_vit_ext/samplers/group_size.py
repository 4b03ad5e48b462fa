"""Batches of images of similar shape, so that each can be resized to one size (DToP, arXiv 2210.11909)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from oml.const import BBOXES_COLUMNS, LABELS_COLUMN, PATHS_COLUMN, SPLIT_COLUMN

from oml_vit_ext.common.arrays import row_of_whole_numbers
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.datasets.frame import read_frame
from oml_vit_ext.images.sizes import ImageSizes, read_image_sizes
from oml_vit_ext.samplers.epochs import EpochBatchSampler
from oml_vit_ext.samplers.grouped_batches import (
    Cells,
    balanced_batches,
    n_balanced_batches,
    n_random_batches,
    random_batches,
)
from oml_vit_ext.transforms.size_groups import GROUP_SIZES, checked_sizes, group_of

logger = logging.getLogger(__name__)


class GroupSizeSampler(EpochBatchSampler):
    """Batches whose images all belong to one group of similar aspect ratio.

    The transform ``augs_dtop`` resizes each image to its group's size: give both the same ``sizes``. All batches have
    ``batch_size`` images. They depend on ``seed`` and the epoch alone, so all processes see the same ones, of which OML
    gives each process its share; so with several devices an optimiser step takes that many batches.

    With ``n_instances`` a batch holds that many images of ``batch_size / n_instances`` labels, as OML's
    ``balance``. An epoch shows each label once, in one group, drawn by the share of its images there; the few labels
    that find no room wait for the next epoch. Batches are topped up with further labels of the group. Where a group has
    too few labels, labels come again in a batch; where a label has too few images in the group, images do.

    With ``n_instances=None`` images come at random, each once an epoch; the last batch of a group is topped up.

    A group with fewer images than half a batch is left out, and the log says so: most of its batch would be copies.
    Take its size out of ``sizes``, here and in the transform, and its images join the group of the nearest shape.

    Sizes are those of the upright images, or of the dataframe's bounding boxes in them. They come from its columns
    ``width`` and ``height`` (and ``turned``), which ``oml_vit_ext.datasets`` writes, or are read from the images once.

    Args:
        labels: Label of each training row; passed by OML's pipeline.
        dataset_root: Folder of the data set, as in the pipeline's config.
        batch_size: Images in a batch.
        n_instances: Images of each label in a batch, a divisor of ``batch_size``; ``None`` for images at random.
        dataframe_name: As in the pipeline's config.
        sizes: Width and height of each group in pixels.
        seed: Of the random choices.
        sizes_cache: CSV file that keeps the sizes of the images; next to the dataframe unless given.
        verbose: Show a progress bar meanwhile.

    Raises:
        ValueError: An argument is out of range, the dataframe does not belong to ``labels``, images cannot be read, or
            every group is too small.
    """

    def __init__(
        self,
        labels: Sequence[int] | NDArray[np.int64],
        dataset_root: str | Path,
        batch_size: int,
        n_instances: int | None,
        dataframe_name: str = "df.csv",
        sizes: Sequence[Sequence[int]] = GROUP_SIZES,
        seed: int = 0,
        sizes_cache: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        self.sizes = checked_sizes(sizes)
        _check_batch(batch_size, n_instances)
        self._batch_size = batch_size
        self.n_instances = n_instances
        self.seed = check_whole("seed", seed)

        root = Path(dataset_root)
        label_of_row = row_of_whole_numbers(labels, "labels")
        rows = _training_rows(root / dataframe_name, label_of_row)
        cache = Path(sizes_cache) if sizes_cache is not None else default_sizes_cache(root / dataframe_name)
        groups = group_of(*_upright_sizes(rows, root, cache, verbose), self.sizes)
        label_numbers = pd.factorize(label_of_row)[0]
        self.groups = self._without_small_groups(groups, label_numbers)
        self._cells = Cells.of(label_numbers, self.groups, len(self.sizes))
        if n_instances is not None and len(self._cells.counts) < batch_size // n_instances:
            raise ValueError(
                f"batch_size={batch_size} and n_instances={n_instances} ask for "
                f"{counted(batch_size // n_instances, 'label')} in a batch, but the training set has "
                f"{len(self._cells.counts)}."
            )

    @property
    def batch_size(self) -> int:
        return self._batch_size

    def __len__(self) -> int:
        """Batches in an epoch, the same in each."""
        if self.n_instances is None:
            return int(n_random_batches(self._cells.counts.sum(axis=0), self._batch_size).sum())
        return int(n_balanced_batches(self._cells, self._batch_size // self.n_instances).sum())

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self._next_epoch()))
        if self.n_instances is None:
            return iter(random_batches(self.groups, len(self.sizes), self._batch_size, rng))
        return iter(balanced_batches(self._cells, self._batch_size // self.n_instances, self.n_instances, rng))

    def _without_small_groups(self, groups: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of each row, -1 for those of groups that are left out."""
        counts = np.bincount(groups, minlength=len(self.sizes))
        small = (counts > 0) & (counts < self._batch_size / 2)
        if not len(groups):
            raise ValueError("The training set has no images, expected rows of the split 'train'.")
        if small.sum() == (counts > 0).sum():
            raise ValueError(
                f"The training set has {counted(len(groups), 'image')} in groups of "
                f"{_named(counts, self.sizes, counts > 0)}, all smaller than half of batch_size={self._batch_size}: "
                f"choose smaller batches or fewer sizes."
            )
        kept = np.where(small[groups], -1, groups)
        if small.any():
            logger.warning(
                "group_size: left out, because smaller than half of batch_size=%d: %s; labels without other images: "
                "%d. Take these sizes out of `sizes` to have the images in the group of the nearest shape.",
                self._batch_size,
                _named(counts, self.sizes, small),
                len(np.unique(labels)) - len(np.unique(labels[kept >= 0])),
            )
        return kept


def default_sizes_cache(dataframe: Path) -> Path:
    """Where the sizes of a data set's images are kept: ``df.csv`` -> ``df.image_sizes.csv``."""
    return dataframe.with_name(f"{dataframe.stem}.image_sizes.csv")


def _check_batch(batch_size: int, n_instances: int | None) -> None:
    check_whole("batch_size", batch_size, 2)
    if n_instances is not None and not (
        isinstance(n_instances, int) and 0 < n_instances < batch_size and batch_size % n_instances == 0
    ):
        raise ValueError(
            f"n_instances is {n_instances}, expected a divisor of batch_size={batch_size} below it, or null for images "
            f"at random."
        )


def _training_rows(dataframe: Path, labels: NDArray[np.int64]) -> pd.DataFrame:
    """The rows that OML trains on, in its order."""
    df = read_frame(dataframe, (LABELS_COLUMN, SPLIT_COLUMN, PATHS_COLUMN))
    rows = df[df[SPLIT_COLUMN] == "train"].reset_index(drop=True)
    same = len(rows) == len(labels) and np.array_equal(pd.factorize(rows[LABELS_COLUMN])[0], pd.factorize(labels)[0])
    if not same:
        raise ValueError(
            f"{dataframe} has {counted(len(rows), 'training row')} of "
            f"{counted(rows[LABELS_COLUMN].nunique(), 'label')}, but the sampler was given "
            f"{counted(len(labels), 'label')}, {len(np.unique(labels))} of them different, or in another order: "
            f"expected the dataset_root and the dataframe_name of the training set."
        )
    return rows


def _upright_sizes(
    rows: pd.DataFrame, root: Path, cache: Path, verbose: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Width and height ``(N,)`` of the images, or of their boxes, as the transform will see them."""
    size = np.zeros((2, len(rows)), dtype=np.int64)
    has_box = np.zeros(len(rows), dtype=bool)
    if set(BBOXES_COLUMNS) <= set(rows.columns):
        has_box = rows[list(BBOXES_COLUMNS)].notna().all(axis=1).to_numpy()
        x1, x2, y1, y2 = (rows[column][has_box].to_numpy(dtype=np.int64) for column in BBOXES_COLUMNS)
        size[:, has_box] = x2 - x1, y2 - y1
    if not has_box.all():
        size[:, ~has_box] = _sizes_of_whole(rows[~has_box], root, cache, verbose).upright()
    return size[0], size[1]


def _sizes_of_whole(rows: pd.DataFrame, root: Path, cache: Path, verbose: bool) -> ImageSizes:
    known = [column for column in ("width", "height", "turned") if column in rows]
    if {"width", "height"} <= set(known) and rows[known].notna().all(axis=None):
        turned = rows["turned"].to_numpy(dtype=bool) if "turned" in rows else np.zeros(len(rows), dtype=bool)
        return ImageSizes(rows["width"].to_numpy(np.int64), rows["height"].to_numpy(np.int64), turned)
    return read_image_sizes([str(path) for path in rows[PATHS_COLUMN]], root, cache=cache, verbose=verbose)


def _named(counts: NDArray[np.int64], sizes: Sequence[tuple[int, int]], which: NDArray[np.bool_]) -> str:
    return ", ".join(f"{w}x{h} ({counted(int(counts[i]), 'image')})" for i, (w, h) in enumerate(sizes) if which[i])
