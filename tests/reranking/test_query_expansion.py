"""αQE against the formula in loops; OML's rules of what is left out; what odd inputs give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.random_index import random_index, random_rows
from helpers.toy_retrieval import embeddings_of, frame, labelled, sequences
from oml_vit_ext.reranking import QueryExpansion
from oml_vit_ext.reranking.query_expansion import expand
from oml_vit_ext.retrieval import retrieve

UNIT = torch.nn.functional.normalize(embeddings_of())


def _dataset(split: str = "all", with_sequences: bool = False):
    df = frame(split)
    dataset = labelled(df)
    if with_sequences:
        dataset.extra_data["sequence"] = sequences()
    return dataset


def _expanded(query: torch.Tensor, found: list[torch.Tensor], alpha: float) -> torch.Tensor:
    total = query.clone()
    for other in found:
        cosine = float(query @ other / (query.norm() * other.norm()))
        total += max(cosine, 0) ** alpha * other if cosine > 0 else 0
    return total * query.norm() / total.norm()


def _plain(embeddings, dataset, n: int, alpha: float, n_items: int, database_side: bool = False):
    """The same with loops: per query distances and gallery positions, the nearest first."""
    query_ids, gallery_ids = dataset.get_query_ids(), dataset.get_gallery_ids()
    names = dataset.extra_data.get("sequence")

    def is_left_out(a: int, b: int) -> bool:
        return a == b or (names is not None and names[a] == names[b])

    def found(query: torch.Tensor, of: int, gallery: torch.Tensor, k: int) -> list[tuple[float, int]]:
        distances = (query - gallery).norm(dim=1).tolist()
        ids = gallery_ids.tolist()
        return sorted((d, i) for i, d in enumerate(distances) if not is_left_out(of, ids[i]))[:k]

    gallery = embeddings[gallery_ids]
    if database_side:
        neighbours = [found(g, int(i), gallery, n) for g, i in zip(gallery, gallery_ids, strict=True)]
        gallery = torch.stack(
            [_expanded(g, [gallery[i] for _, i in near], alpha) for g, near in zip(gallery, neighbours, strict=True)]
        )
    results = []
    for q in query_ids.tolist():
        near = found(embeddings[q], q, gallery, n)
        results.append(found(_expanded(embeddings[q], [gallery[i] for _, i in near], alpha), q, gallery, n_items))
    return results


@pytest.mark.parametrize("database_side", [False, True])
@pytest.mark.parametrize("with_sequences", [False, True])
@pytest.mark.parametrize(("split", "scale"), [("all", 1.0), ("separate", 7.0), ("overlapping", 1.0)])
def test_it_is_the_formula_with_oml_rules(split: str, scale: float, with_sequences: bool, database_side: bool):
    dataset = _dataset(split, with_sequences)
    embeddings = embeddings_of(scale=scale)
    rr = retrieve(embeddings, dataset, n_items=7)
    new = QueryExpansion(n=4, alpha=2.0, database_side=database_side).process(rr, dataset, embeddings)
    plain = _plain(embeddings.double(), dataset, 4, 2.0, 7, database_side)
    assert [ids.tolist() for ids in new.retrieved_ids] == [[i for _, i in row] for row in plain]
    for found, row in zip(new.distances, plain, strict=True):
        torch.testing.assert_close(found, torch.tensor([d for d, _ in row]), rtol=1e-4, atol=1e-5 * scale)
    assert [ids.tolist() for ids in new.gt_ids] == [ids.tolist() for ids in rr.gt_ids]


def test_alpha_0_is_the_average_and_a_large_alpha_changes_next_to_nothing():
    dataset = _dataset("separate")
    rr = retrieve(UNIT, dataset, n_items=5)
    average = QueryExpansion(n=3, alpha=0).process(rr, dataset, UNIT)
    assert [ids.tolist() for ids in average.retrieved_ids] == [
        [i for _, i in row] for row in _plain(UNIT.double(), dataset, 3, 0.0, 5)
    ]
    nothing = QueryExpansion(n=3, alpha=500).process(rr, dataset, UNIT)
    assert [ids.tolist() for ids in nothing.retrieved_ids] == [ids.tolist() for ids in rr.retrieved_ids]


def test_it_expands_by_the_results_it_is_given():
    """After a re-ranker, its order counts."""
    dataset = _dataset("separate")
    rr = retrieve(UNIT, dataset, n_items=6)
    turned = RetrievalResults(rr.distances, [ids.flip(0) for ids in rr.retrieved_ids], rr.gt_ids)
    new = QueryExpansion(n=2, alpha=1).process(turned, dataset, UNIT)
    gallery = UNIT[dataset.get_gallery_ids()]
    for q, row in enumerate(dataset.get_query_ids().tolist()):
        query = _expanded(UNIT[row], list(gallery[turned.retrieved_ids[q][:2]]), 1.0)
        assert new.retrieved_ids[q][0] == (query - gallery).norm(dim=1).argmin()


@pytest.mark.parametrize("database_side", [False, True])
def test_blocks_of_any_size_give_the_same(database_side: bool):
    dataset = _dataset()
    rr = retrieve(UNIT, dataset, n_items=9)
    large, small = (
        QueryExpansion(3, 3.0, database_side, memory_mb=mb).process(rr, dataset, UNIT) for mb in (256, 1e-3)
    )
    assert [ids.tolist() for ids in large.retrieved_ids] == [ids.tolist() for ids in small.retrieved_ids]


def test_half_precision_gradients_and_arrays_are_taken():
    dataset = _dataset("separate")
    rr = retrieve(UNIT, dataset, n_items=5)
    expansion = QueryExpansion(n=3)
    with_gradient = UNIT.clone().requires_grad_()
    expected = expansion.process(rr, dataset, UNIT.half().float())
    for given in (UNIT.half(), UNIT.half().numpy(), UNIT.half().float().requires_grad_()):
        new = expansion.process(rr, dataset, given)
        assert [ids.tolist() for ids in new.retrieved_ids] == [ids.tolist() for ids in expected.retrieved_ids]
    assert not any(d.requires_grad for d in expansion.process(rr, dataset, with_gradient).distances)


def test_few_results_duplicates_and_none_at_all():
    df = frame("separate")[:12].copy()
    df["is_query"] = [True] * 8 + [False] * 4
    df["is_gallery"] = ~df.is_query
    dataset = labelled(df)
    same = torch.ones(12, 3)
    rr = retrieve(same, dataset, n_items=100)
    new = QueryExpansion(n=10, database_side=True).process(rr, dataset, same)
    assert [sorted(ids.tolist()) for ids in new.retrieved_ids] == [[0, 1, 2, 3]] * 8
    assert all(torch.isfinite(d).all() for d in new.distances)
    empty = RetrievalResults([torch.empty(0)] * 8, [torch.empty(0, dtype=torch.long)] * 8)
    assert QueryExpansion().process(empty, dataset, same).is_empty()


def test_shortened_results_stay_short():
    dataset = _dataset("separate")
    rr = retrieve(UNIT, dataset, n_items=6)
    cut = RetrievalResults(
        [d[: i % 4] for i, d in enumerate(rr.distances)], [r[: i % 4] for i, r in enumerate(rr.retrieved_ids)]
    )
    new = QueryExpansion(n=3).process(cut, dataset, UNIT)
    assert [len(ids) for ids in new.retrieved_ids] == [len(ids) for ids in cut.retrieved_ids]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n is 0, expected a whole number of at least 1"),
        ({"alpha": -1}, "alpha is -1, expected a finite number of at least 0"),
        ({"memory_mb": 0}, "memory_mb is 0, expected a positive number of MB"),
        ({"memory_mb": "8"}, "memory_mb is '8', expected a finite number"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        QueryExpansion(**arguments)


def test_expanding_by_neighbours_is_a_pure_function():
    from oml_vit_ext.reranking.query_expansion import expand

    rng = np.random.default_rng(0)
    queries, neighbours = rng.standard_normal((3, 4)), rng.standard_normal((3, 2, 4))
    is_there = np.array([[True, False], [True, True], [False, False]])
    for q in range(3):
        found = [torch.from_numpy(neighbours[q, i]) for i in range(2) if is_there[q, i]]
        plain = _expanded(torch.from_numpy(queries[q]), found, 1.5)
        np.testing.assert_allclose(expand(queries, neighbours, 1.5, is_there)[q], plain, rtol=1e-12)


@pytest.mark.parametrize("n", [10**9, 10**30])
def test_more_neighbours_than_there_are_take_no_more_memory(tmp_path: Path, n: int):
    index, queries = random_index(tmp_path, n=30), random_rows(np.arange(3))
    assert index.search(queries, 5, postprocessor=QueryExpansion(n)) == index.search(
        queries, 5, postprocessor=QueryExpansion(30)
    )


def test_a_large_power_of_a_cosine_that_is_rounded_above_one():
    rows = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    expanded = expand(rows, rows[:, None], alpha=1e300)
    np.testing.assert_allclose(expanded, rows, rtol=1e-5)
