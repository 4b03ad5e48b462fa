"""Pairs of near images and their rivals, for a model that tells pairs apart (STIR's training, and OML's)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.arrays import Floats, Ids, row_of_whole_numbers
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.samplers.epochs import EpochBatchSampler
from oml_vit_ext.samplers.mining import checked_embeddings


class NearestPairsSampler(EpochBatchSampler):
    """Batches of pairs that look alike: an anchor and an image of its label, their rival and an image of its label.

    A re-ranker puts the first candidates of a query into order: images that are near it, of its label or not. Batches
    drawn at random show it mostly images of its label that are far, and rivals that are easy. Here the anchor's partner
    is drawn among the ``nearest`` images of its label, the rival among the ``nearest`` images of other labels, and the
    rival has a partner as the anchor has. All pairs of a batch are of different labels: OML's hard mining within the
    batch then gives each image its partner as the positive, and its rival, or one that is nearer, as the negative.

    What is near, the embeddings of the first stage say, by Euclidean distance. OML's training of re-rankers computes
    them anyway, and hands them over; in your own loop, see :meth:`use_embeddings`.

    In an epoch each label gives one anchor, in random order; the last ones are left out if they fill no batch.
    Labels with one image give none. The draws depend on ``seed``, the epoch and the embeddings alone.

    Args:
        labels: Label of each training row; passed by OML's pipeline.
        n_anchors: Anchors in a batch, which has four times as many images.
        nearest: Among how many images a partner or a rival is drawn; 1 takes the nearest.
        seed: Of the random draws.

    Raises:
        ValueError: An argument is out of range, or there are fewer labels of two images than pairs in a batch.
    """

    def __init__(
        self, labels: Sequence[int] | NDArray[Any], n_anchors: int = 16, nearest: int = 5, seed: int = 0
    ) -> None:
        self.labels = row_of_whole_numbers(labels, "labels")
        self.n_anchors = check_whole("n_anchors", n_anchors, 1)
        self.nearest = check_whole("nearest", nearest, 1)
        self.seed = check_whole("seed", seed)
        names, numbers, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        rows_of = np.split(np.argsort(numbers, kind="stable"), np.cumsum(counts)[:-1])
        self._rows_of = {int(name): rows for name, rows in zip(names, rows_of, strict=True) if len(rows) > 1}
        if len(self._rows_of) < 2 * self.n_anchors:
            raise ValueError(
                f"n_anchors is {n_anchors}, but the training set has {counted(len(self._rows_of), 'label')} of two or "
                f"more images: expected at least {2 * self.n_anchors}, as each anchor and each rival is of another one."
            )
        self._embeddings: Floats | None = None

    @property
    def batch_size(self) -> int:
        return 4 * self.n_anchors

    def __len__(self) -> int:
        return len(self._rows_of) // self.n_anchors

    def __iter__(self) -> Iterator[list[int]]:
        if self._embeddings is None:
            raise RuntimeError(
                "nearest_pairs has no embeddings to find near images with: use it in OML's training of re-rankers, or "
                "call sampler.use_embeddings(embeddings) first, with a row for each image of the training set."
            )
        rng = np.random.default_rng((self.seed, self._next_epoch()))
        anchor_labels = rng.permutation(np.fromiter(self._rows_of, dtype=np.int64))
        for start in range(0, len(self) * self.n_anchors, self.n_anchors):
            yield self._batch(anchor_labels[start : start + self.n_anchors], self._embeddings, rng)

    def use_embeddings(self, embeddings: Tensor | NDArray[np.floating[Any]]) -> None:
        """Find near images by these from now on.

        Args:
            embeddings: ``(N, D)``, of the training rows in their order.

        Raises:
            ValueError: They are of another shape, or hold NaN or infinity.
        """
        self._embeddings = checked_embeddings(embeddings, len(self.labels))

    def _batch(self, anchor_labels: Ids, embeddings: Floats, rng: np.random.Generator) -> list[int]:
        """Four rows side by side: anchor, its partner, its rival, the rival's partner."""
        anchors = [int(rng.choice(self._rows_of[label])) for label in anchor_labels.tolist()]
        distances = _distances(embeddings[anchors], embeddings)
        is_taken = np.isin(self.labels, list(self._rows_of), invert=True) | np.isin(self.labels, anchor_labels)
        batch: list[int] = []
        for anchor, to_all in zip(anchors, distances, strict=True):
            rivals = np.flatnonzero(~is_taken)
            rival = self._one_of_the_nearest(rivals, to_all[rivals], rng)
            is_taken |= self.labels == self.labels[rival]
            batch += [anchor, self._partner(anchor, embeddings, rng), rival, self._partner(rival, embeddings, rng)]
        return batch

    def _partner(self, row: int, embeddings: Floats, rng: np.random.Generator) -> int:
        others = self._rows_of[int(self.labels[row])]
        others = others[others != row]
        return self._one_of_the_nearest(others, _distances(embeddings[[row]], embeddings[others])[0], rng)

    def _one_of_the_nearest(self, rows: Ids, distances: Floats, rng: np.random.Generator) -> int:
        n = min(self.nearest, len(rows))
        return int(rows[rng.choice(np.argpartition(distances, n - 1)[:n])])


def _distances(some: Floats, others: Floats) -> Floats:
    """Squared Euclidean distances ``(A, N)``, each row up to a constant of its own."""
    return np.einsum("nd,nd->n", others, others) - 2 * some @ others.T
