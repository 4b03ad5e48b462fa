"""Batches within groups: what an epoch shows, how often, and how much of it is repeated."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from oml_vit_ext.samplers.grouped_batches import (
    Cells,
    balanced_batches,
    cycled,
    n_balanced_batches,
    n_random_batches,
    random_batches,
)


def test_cells_hold_the_rows_of_a_label_in_a_group():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(5, size=60), rng.integers(-1, 3, size=60)
    cells = Cells.of(labels, groups, 3)
    assert cells.counts.shape == (5, 3)
    for label in range(5):
        for group in range(3):
            expected = [row for row in range(60) if (labels[row], groups[row]) == (label, group)]
            assert cells.counts[label, group] == len(expected)
            assert sorted(cells.draw(label, group, len(expected), rng)) == expected


@pytest.mark.parametrize("n", [0, 2, 3, 7])
def test_nothing_is_drawn_again_before_everything_was(n: int):
    drawn = cycled(np.array([4, 5, 6]), n, np.random.default_rng(0))
    assert len(drawn) == n
    for start in range(0, n, 3):
        part = drawn[start : start + 3]
        assert len(set(part)) == len(part) and set(part) <= {4, 5, 6}


def test_an_epoch_shows_every_label():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(200), 10)
    cells = Cells.of(labels, rng.choice(3, 2000, p=[0.6, 0.3, 0.1]), 3)
    missed = []
    for _ in range(20):
        batches = balanced_batches(cells, 8, 4, rng)
        missed.append(200 - len({int(labels[row]) for batch in batches for row in batch}))
    assert np.mean(missed) <= 2, "a few may wait for the next epoch"
    assert len(batches) <= 200 / 8 + 3


def test_in_a_single_group_it_is_the_oml_balance_sampler_with_nothing_dropped():
    labels = np.repeat(np.arange(30), 5)
    cells = Cells.of(labels, np.zeros(150, dtype=int), 1)
    batches = balanced_batches(cells, 8, 4, np.random.default_rng(0))
    assert len(batches) == 4  # OML makes 3 and drops 6 labels
    shown = Counter(int(labels[row]) for batch in batches for row in batch)
    assert set(shown) == set(range(30)) and sum(shown.values()) == 4 * 32
    assert set(shown.values()) <= {4, 8}


def test_batches_of_a_group_follow_the_share_of_the_images():
    labels = np.repeat(np.arange(40), 10)
    groups = np.tile([0] * 5 + [1] * 4 + [2], 40)
    assert n_balanced_batches(Cells.of(labels, groups, 3), 4).tolist() == [5, 4, 1]


def test_a_label_with_few_images_in_the_group_repeats_them():
    labels = np.array([0, 1, 1, 1])
    batches = balanced_batches(Cells.of(labels, np.zeros(4, dtype=int), 1), 2, 4, np.random.default_rng(0))
    (batch,) = batches
    counts = Counter(batch)
    assert counts[0] == 4 and sorted(counts[row] for row in (1, 2, 3)) == [1, 1, 2]


def test_a_group_of_few_labels_shows_them_again_with_other_images():
    labels = np.repeat([0, 1], 6)
    (batch,) = balanced_batches(Cells.of(labels, np.zeros(12, dtype=int), 1), 4, 3, np.random.default_rng(0))
    assert sorted(batch) == list(range(12))


def test_random_batches_show_each_image_once_but_for_topping_up():
    groups = np.array([0] * 21 + [1] * 8 + [-1] * 5 + [2] * 5)
    batches = random_batches(groups, 3, 8, np.random.default_rng(0))
    assert len(batches) == 3 + 1 + 1
    shown = Counter(row for batch in batches for row in batch)
    assert set(shown) == {row for row in range(len(groups)) if groups[row] >= 0}
    of_first = [batch for batch in batches if groups[batch[0]] == 0]
    assert all(len(set(batch)) == 8 for batch in of_first)
    assert sum(shown[row] for row in range(21)) == 24 and shown.most_common(1)[0][1] == 2
    assert {shown[row] for row in range(21, 29)} == {1}


def test_random_batches_are_counted_before_they_are_made():
    groups = np.random.default_rng(0).integers(-1, 3, size=100)
    counts = np.array([(groups == group).sum() for group in range(3)])
    found = Counter(int(groups[batch[0]]) for batch in random_batches(groups, 3, 8, np.random.default_rng(0)))
    assert n_random_batches(counts, 8).tolist() == [found[group] for group in range(3)]
    assert n_random_batches(np.array([0, 1, 8, 9]), 8).tolist() == [0, 1, 1, 2]
