"""Batches within groups: pure functions from labels, groups and a random generator to lists of row numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cells:
    """Rows of a data set by label and group.

    Labels and groups are numbers from 0. ``rows`` holds those of a label in a group side by side.
    """

    rows: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (labels, groups)
    starts: NDArray[np.int64]  # (labels, groups), into ``rows``

    @classmethod
    def of(cls, labels: NDArray[np.int64], groups: NDArray[np.int64], n_groups: int) -> Cells:
        """From the label and the group ``(N,)`` of each row. Rows of group -1 are left out."""
        used = np.flatnonzero(groups >= 0)
        key = groups[used] * (int(labels.max()) + 1) + labels[used]
        counts = np.bincount(key, minlength=n_groups * (int(labels.max()) + 1)).reshape(n_groups, -1).T
        starts = (np.cumsum(counts.T.ravel()) - counts.T.ravel()).reshape(n_groups, -1).T
        return cls(used[np.argsort(key, kind="stable")], counts, starts)

    def draw(self, label: int, group: int, n: int, rng: np.random.Generator) -> list[int]:
        """``n`` rows of a label in a group at random; none again before all were drawn."""
        start, count = self.starts[label, group], self.counts[label, group]
        return cycled(self.rows[start : start + count], n, rng)


def cycled(items: NDArray[np.int64], n: int, rng: np.random.Generator) -> list[int]:
    """``n`` of the items in random order; none again before all were drawn."""
    rounds = [rng.permutation(items) for _ in range(-(-n // len(items)))]
    return np.concatenate(rounds)[:n].tolist() if rounds else []


def n_balanced_batches(cells: Cells, n_labels: int) -> NDArray[np.int64]:
    """Batches of each group in an epoch ``(groups,)``: enough for each label to be shown once.

    A label counts in a group by the share of its images that are there.
    """
    shares = cells.counts / np.maximum(cells.counts.sum(axis=1, keepdims=True), 1)
    return np.ceil(shares.sum(axis=0) / n_labels - 1e-9).astype(int)


def balanced_batches(cells: Cells, n_labels: int, n_instances: int, rng: np.random.Generator) -> list[list[int]]:
    """One epoch of batches of ``n_labels * n_instances`` rows, each within one group, in random order.

    Each label is shown once, in a group drawn by the share of its images that are there. Where more labels drew a group
    than its batches hold, they go to another of their groups that has room, or wait for the next epoch. Where fewer
    did, batches are topped up with other labels of the group, drawn by their images there. In a group of fewer labels
    than ``n_labels``, labels come again in a batch.
    """
    n_batches = n_balanced_batches(cells, n_labels)
    drawn = _labels_by_group(cells, n_batches * n_labels, rng)
    batches: list[list[int]] = []
    for group, labels in enumerate(drawn):
        for i in range(n_batches[group]):
            shown = _topped_up(labels[i :: n_batches[group]], cells.counts[:, group], n_labels, rng)
            times = Counter(shown)
            batches.append(
                [row for label in times for row in cells.draw(label, group, times[label] * n_instances, rng)]
            )
    return [batches[i] for i in rng.permutation(len(batches))]


def _labels_by_group(cells: Cells, room: NDArray[np.int64], rng: np.random.Generator) -> list[list[int]]:
    """For each group the labels that are shown in it this epoch, in random order, at most ``room[group]``."""
    labels = rng.permutation(np.flatnonzero(cells.counts.sum(axis=1)))
    borders = np.cumsum(cells.counts[labels], axis=1)
    groups = (rng.integers(borders[:, -1])[:, None] >= borders).sum(axis=1)
    taken: list[list[int]] = [labels[groups == g].tolist() for g in range(len(room))]
    too_many = [label for g, of_group in enumerate(taken) for label in of_group[room[g] :]]
    taken = [of_group[: room[g]] for g, of_group in enumerate(taken)]
    for label in too_many:
        for g in np.argsort(-cells.counts[label], kind="stable"):
            if cells.counts[label, g] > 0 and len(taken[g]) < room[g]:
                taken[g].append(label)
                break
    return taken


def _topped_up(labels: list[int], counts: NDArray[np.int64], n_labels: int, rng: np.random.Generator) -> list[int]:
    """``n_labels`` labels that begin with the given ones; further ones are drawn by their ``counts``."""
    while len(labels) < n_labels:
        weights = counts.astype(float)
        weights[labels] = 0
        if not weights.any():  # all labels of the group are there: they come again
            return cycled(np.array(labels), n_labels, rng)
        n = min(n_labels - len(labels), int(np.count_nonzero(weights)))
        labels = labels + rng.choice(len(weights), n, replace=False, p=weights / weights.sum()).tolist()
    return labels


def n_random_batches(counts: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """Batches of each group ``(groups,)`` from its images: each is shown once, the last batch is topped up."""
    return -(-counts // batch_size)


def random_batches(
    groups: NDArray[np.int64], n_groups: int, batch_size: int, rng: np.random.Generator
) -> list[list[int]]:
    """One epoch of batches of ``batch_size`` rows at random, each within one group, in random order.

    Each row of a group from 0 is shown once; the last batch of a group is topped up with other rows of the group, and
    in a group of fewer than ``batch_size`` rows they come again.
    """
    batches = []
    for group in range(n_groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        missing = -len(rows) % batch_size
        if missing:
            others = rows[: len(rows) - len(rows) % batch_size]  # those that are not in the last batch
            rows = np.concatenate([rows, cycled(others if len(others) else rows, missing, rng)])
        batches += rows.reshape(-1, batch_size).tolist()
    return [batches[i] for i in rng.permutation(len(batches))]
