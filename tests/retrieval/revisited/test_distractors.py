"""Counting distractors gives the figures of the full ranking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oml_vit_ext.retrieval import evaluate_revisited, evaluate_revisited_embeddings, stored_chunks
from oml_vit_ext.retrieval.revisited.embedding_files import n_stored, store


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


def test_stored_embeddings_come_back_in_order(tmp_path: Path):
    rows = case(3)[3]
    store(rows[:200], tmp_path / "shards" / "000.npy")
    store(rows[200:].astype(np.float16), tmp_path / "shards" / "001.npy")
    chunks = list(stored_chunks(tmp_path / "shards", rows=64))
    assert max(map(len, chunks)) == 64 and n_stored(tmp_path / "shards") == 300
    np.testing.assert_allclose(np.concatenate(chunks), rows, rtol=1e-3, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["000.npy", "001.npy"]


def test_one_file_is_enough(tmp_path: Path):
    rows = case(3)[3]
    store(rows, tmp_path / "all.npy")
    np.testing.assert_array_equal(np.concatenate(list(stored_chunks(tmp_path / "all.npy", rows=7))), rows)


def test_bad_embeddings_are_named(tmp_path: Path):
    queries, database, truth, distractors = case(4)
    with pytest.raises(ValueError, match="distractors have dimension 5, but the queries 6"):
        evaluate_revisited_embeddings(queries, database, truth, [distractors[:, :5]])
    holes = distractors.copy()
    holes[17, 2] = np.nan
    with pytest.raises(ValueError, match="Embedding 17 of the distractors holds NaN"):
        evaluate_revisited_embeddings(queries, database, truth, [holes])
    with pytest.raises(ValueError, match="there are 10 database embeddings"):
        evaluate_revisited_embeddings(queries, database[:10], truth)
    with pytest.raises(ValueError, match="4 query embeddings"):
        evaluate_revisited_embeddings(queries[:4], database, truth)
    with pytest.raises(ValueError, match="database have shape"):
        evaluate_revisited_embeddings(queries, database[:0], truth)


def test_bad_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"missing or holds no .npy"):
        list(stored_chunks(tmp_path))
    store(np.arange(10, dtype=np.float32), tmp_path / "flat.npy")
    with pytest.raises(ValueError, match="expected floats of shape"):
        list(stored_chunks(tmp_path / "flat.npy"))
    store(case(0)[3], tmp_path / "cut.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"cut.npy cannot be read"):
        list(stored_chunks(tmp_path / "cut.npy"))
