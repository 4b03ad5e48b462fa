"""Hard negatives and their batches, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.plain_mining import embeddings, plainly
from oml_vit_ext.samplers.mining import arrange, hardest_negatives


@pytest.mark.parametrize("n_labels", [6, 40])
def test_negatives_are_the_most_similar_of_other_labels(n_labels: int):
    rng = np.random.default_rng(1)
    candidates, anchors = embeddings(400), embeddings(30, seed=2)
    labels, own = rng.integers(n_labels, size=400), rng.integers(n_labels, size=30)
    found, similarity = hardest_negatives(anchors, own, candidates, labels, 5)
    for i in range(30):
        expected = plainly(anchors[i], own[i], candidates, labels, 5)
        assert found[i].tolist() == expected
        np.testing.assert_allclose(similarity[i], candidates[expected] @ anchors[i], atol=1e-5)


def test_a_label_that_fills_the_list_is_looked_past():
    near = np.tile(embeddings(1), (1_000, 1))
    candidates = np.concatenate([near, embeddings(3, seed=5)])
    labels = np.concatenate([np.zeros(1_000, dtype=int), [1, 2, 3]])
    found, _ = hardest_negatives(near[:1], np.array([0]), candidates, labels, 3)
    assert set(found[0]) == {1_000, 1_001, 1_002}


def test_too_few_labels_are_named():
    with pytest.raises(ValueError, match="candidates have 2 labels, expected at least 4"):
        hardest_negatives(embeddings(1), np.array([0]), embeddings(10), np.arange(10) % 2, 3)


def test_tuples_in_a_batch_share_no_label_where_that_is_possible():
    labels = np.random.default_rng(0).integers(300, size=(100, 6))
    batches = arrange(labels, 5)
    assert sorted(i for batch in batches for i in batch) == list(range(100)) and {len(b) for b in batches} == {5}

    def clashes(batches: list[list[int]]) -> int:
        return sum(len({*labels[a]} & {*labels[b]}) for batch in batches for a in batch for b in batch if a < b)

    assert clashes(batches) <= 3 < clashes(np.arange(100).reshape(20, 5).tolist())


def test_what_fills_no_batch_is_left_out_and_clashes_are_taken_where_they_must_be():
    labels = np.zeros((7, 2), dtype=int)
    batches = arrange(labels, 3)
    assert [len(batch) for batch in batches] == [3, 3]
    assert len({i for batch in batches for i in batch}) == 6
    assert arrange(labels[:2], 3) == []
