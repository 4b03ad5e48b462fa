"""Counting distractors gives the figures of the full ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oml_vit_ext.retrieval import evaluate_revisited, evaluate_revisited_embeddings


def case(seed: int, n_distractors: int = 300, steps: int | None = None) -> tuple:
    """Queries, database, ground truth, distractors; with ``steps`` coordinates are so coarse that similarities tie."""
    rng = np.random.default_rng(seed)

    def rows(n: int) -> np.ndarray:
        values = rng.standard_normal((n, 6)).astype(np.float32)
        return values if steps is None else np.round(values * steps) / steps

    truth = []
    for _ in range(5):
        parts = np.split(rng.permutation(40), np.cumsum(rng.integers(0, 7, size=3)))[:3]
        truth.append(dict(zip(("easy", "hard", "junk"), parts, strict=True)))
    return rows(5), rows(40), truth, rows(n_distractors)


def full_ranking(queries: np.ndarray, database: np.ndarray, distractors: np.ndarray) -> list[np.ndarray]:
    everything = np.concatenate([database, distractors])
    return [np.argsort(-(everything @ query), kind="stable") for query in queries]


@pytest.mark.parametrize("steps", [None, 1], ids=["all different", "many ties"])
@pytest.mark.parametrize("chunk", [1, 64, 300, 1000])
def test_chunks_give_the_figures_of_the_full_ranking(steps: int | None, chunk: int):
    queries, database, truth, distractors = case(0, steps=steps)
    chunks = (distractors[i : i + chunk] for i in range(0, len(distractors), chunk))
    counted = evaluate_revisited_embeddings(queries, database, truth, chunks)
    ranked = evaluate_revisited(full_ranking(queries, database, distractors), truth)
    for level in ranked:
        assert counted[level] == pytest.approx(ranked[level], abs=1e-12)


def test_without_distractors_it_is_the_plain_protocol():
    queries, database, truth, _ = case(1)
    assert evaluate_revisited_embeddings(queries, database, truth) == evaluate_revisited(
        full_ranking(queries, database, np.empty((0, 6), dtype=np.float32)), truth
    )


def test_distractors_hurt():
    queries, database, truth, distractors = case(2)
    alone = evaluate_revisited_embeddings(queries, database, truth)
    among = evaluate_revisited_embeddings(queries, database, truth, [distractors])
    assert among["medium"]["map"] < alone["medium"]["map"]


def test_bad_embeddings_are_named(tmp_path: Path):
    queries, database, truth, distractors = case(4)
    with pytest.raises(ValueError, match="distractors have dimension 5, but the queries 6"):
        evaluate_revisited_embeddings(queries, database, truth, [distractors[:, :5]])
    holes = distractors.copy()
    holes[17, 2] = np.nan
    with pytest.raises(ValueError, match="Embedding 17 of the distractors holds NaN"):
        evaluate_revisited_embeddings(queries, database, truth, [holes])
    with pytest.raises(ValueError, match="expected 0 to 9, those of the database"):
        evaluate_revisited_embeddings(queries, database[:10], truth)
    with pytest.raises(ValueError, match="of 4 queries, ground truth is for 5"):
        evaluate_revisited_embeddings(queries[:4], database, truth)
    with pytest.raises(ValueError, match="database have shape"):
        evaluate_revisited_embeddings(queries, database[:0], truth)
