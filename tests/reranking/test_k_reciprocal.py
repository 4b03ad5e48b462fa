"""k-reciprocal re-ranking against the authors' dense algorithm, with OML's rules on top."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.dense_k_reciprocal import from_squared, k_reciprocal_distances
from helpers.toy_retrieval import N, embeddings_of, frame, labelled, sequences
from oml_vit_ext.reranking import KReciprocalReranker, QueryExpansion
from oml_vit_ext.reranking.k_reciprocal import pool_of
from oml_vit_ext.retrieval import retrieve
from oml_vit_ext.retrieval.search_space import search_space
from oml_vit_ext.retrieval.settings import Settings


def _clustered(n: int = N, seed: int = 0) -> torch.Tensor:
    """Embeddings around the labels' centres, so that neighbourhoods mean something."""
    labels = torch.from_numpy(frame(n=n).label.to_numpy())
    return torch.nn.functional.normalize(embeddings_of(12, seed=3)[labels] + 0.8 * embeddings_of(n, seed=seed))


def _dense(embeddings: torch.Tensor, dataset, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """The authors' distances of all queries to all gallery images, what OML leaves out at infinity.

    An image that is query and gallery is one image: the pool is each image once.
    """
    queries, gallery = dataset.get_query_ids().numpy(), dataset.get_gallery_ids().numpy()
    pool = np.concatenate([np.setdiff1d(queries, gallery), gallery])
    e = embeddings.double().numpy()
    squared = ((e[pool][:, None] - e[pool][None]) ** 2).sum(axis=2)
    full = from_squared(squared, len(pool), k1, k2, lambda_value)
    at = {int(image): i for i, image in enumerate(pool)}
    distances = full[[at[q] for q in queries]][:, [at[g] for g in gallery]]
    names = dataset.extra_data.get("sequence")
    for i, q in enumerate(queries):
        for j, g in enumerate(gallery):
            if q == g or (names is not None and names[q] == names[g]):
                distances[i, j] = np.inf
    return distances


@pytest.mark.parametrize("with_sequences", [False, True])
@pytest.mark.parametrize("split", ["all", "separate", "overlapping"])
@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 3, 0.0), (6, 1, 0.5), (3, 8, 0.9)])
def test_it_is_the_authors_algorithm(split: str, with_sequences: bool, k1: int, k2: int, lambda_value: float):
    dataset = labelled(frame(split))
    if with_sequences:
        dataset.extra_data["sequence"] = sequences()
    embeddings = _clustered()
    rr = retrieve(embeddings, dataset, n_items=15)
    new = KReciprocalReranker(k1, k2, lambda_value).process(rr, dataset, embeddings)
    dense = _dense(embeddings, dataset, k1, k2, lambda_value)
    for q, (ids, distances) in enumerate(zip(new.retrieved_ids, new.distances, strict=True)):
        order = np.argsort(dense[q], kind="stable")[: len(ids)]
        np.testing.assert_allclose(distances.numpy(), dense[q][order], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dense[q][ids.numpy()], dense[q][order], rtol=1e-4, atol=1e-5)  # the same to ties
        assert len(set(ids.tolist())) == len(ids) == len(rr.retrieved_ids[q])
    assert [ids.tolist() for ids in new.gt_ids] == [ids.tolist() for ids in rr.gt_ids]


def test_separate_queries_and_gallery_are_the_authors_call():
    dataset, embeddings = labelled(frame("separate")), _clustered()
    q, g = (embeddings[ids()].numpy() for ids in (dataset.get_query_ids, dataset.get_gallery_ids))
    dense = k_reciprocal_distances(q, g, 20, 6, 0.3)
    rr = retrieve(embeddings, dataset, n_items=len(g))
    new = KReciprocalReranker().process(rr, dataset, embeddings)
    for row, ids, distances in zip(dense, new.retrieved_ids, new.distances, strict=True):
        np.testing.assert_allclose(distances.numpy(), row[ids.numpy()], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(distances.numpy(), np.sort(row), rtol=1e-4, atol=1e-5)


def test_it_finds_what_was_not_retrieved():
    dataset, embeddings = labelled(frame()), _clustered()
    rr = retrieve(embeddings, dataset, n_items=3)
    new = KReciprocalReranker().process(rr, dataset, embeddings)
    assert any(set(a.tolist()) - set(b.tolist()) for a, b in zip(new.retrieved_ids, rr.retrieved_ids, strict=True))


def test_lambda_1_is_the_first_stage():
    dataset, embeddings = labelled(frame("overlapping")), _clustered()
    rr = retrieve(embeddings, dataset, n_items=20)
    new = KReciprocalReranker(lambda_value=1).process(rr, dataset, embeddings)
    assert [ids.tolist() for ids in new.retrieved_ids] == [ids.tolist() for ids in rr.retrieved_ids]


def test_blocks_of_any_size_give_the_same():
    dataset, embeddings = labelled(frame("overlapping")), _clustered()
    rr = retrieve(embeddings, dataset, n_items=20)
    large, small = (KReciprocalReranker(memory_mb=mb).process(rr, dataset, embeddings) for mb in (256, 1e-2))
    assert [ids.tolist() for ids in large.retrieved_ids] == [ids.tolist() for ids in small.retrieved_ids]
    for a, b in zip(large.distances, small.distances, strict=True):
        torch.testing.assert_close(a, b)


def test_among_the_first_it_is_the_authors_algorithm_on_these():
    dataset, embeddings = labelled(frame("separate")), _clustered()
    gallery = embeddings[dataset.get_gallery_ids()].numpy()
    rr = retrieve(embeddings, dataset, n_items=40)
    new = KReciprocalReranker(5, 3, 0.2, top_n=25).process(rr, dataset, embeddings)
    for q, row in enumerate(dataset.get_query_ids().tolist()):
        first = rr.retrieved_ids[q][:25].numpy()
        dense = k_reciprocal_distances(embeddings[row : row + 1].numpy(), gallery[first], 5, 3, 0.2)[0]
        at = {int(i): j for j, i in enumerate(first)}
        got = dense[[at[i] for i in new.retrieved_ids[q][:25].tolist()]]
        np.testing.assert_allclose(got, np.sort(dense), rtol=1e-4, atol=1e-5)
        assert new.retrieved_ids[q][25:].tolist() == rr.retrieved_ids[q][25:].tolist()
        assert (new.distances[q].diff() >= 0).all()


def test_among_the_first_other_queries_make_no_difference():
    dataset, embeddings = labelled(frame("separate")), _clustered()
    few = frame("separate")
    few.loc[few.is_query & (few.index > 20), "is_query"] = False
    few = few[few.is_query | few.is_gallery]
    kept = few.index.to_numpy()
    reranker = KReciprocalReranker(5, 3, top_n=25)
    assert reranker.independent and not KReciprocalReranker().independent
    all_of_them = reranker.process(retrieve(embeddings, dataset, n_items=30), dataset, embeddings)
    fewer = labelled(few.reset_index(drop=True))
    some = reranker.process(retrieve(embeddings[kept], fewer, n_items=30), fewer, embeddings[kept])
    for a, b in zip(all_of_them.retrieved_ids, some.retrieved_ids, strict=False):
        assert a.tolist() == b.tolist()


@pytest.mark.parametrize("top_n", [None, 30])
@pytest.mark.parametrize("n_gallery", [1, 2, 5])
def test_a_gallery_smaller_than_k1(n_gallery: int, top_n: int | None):
    df = frame("separate")[: n_gallery + 3].copy()
    df["is_query"] = [True] * 3 + [False] * n_gallery
    df["is_gallery"] = ~df.is_query
    dataset, embeddings = labelled(df), embeddings_of(len(df))
    rr = retrieve(embeddings, dataset, n_items=100)
    new = KReciprocalReranker(top_n=top_n).process(rr, dataset, embeddings)
    assert [sorted(ids.tolist()) for ids in new.retrieved_ids] == [list(range(n_gallery))] * 3
    assert all(torch.isfinite(d).all() for d in new.distances)


@pytest.mark.parametrize("top_n", [None, 12])
def test_more_duplicates_than_k1(top_n: int | None):
    """An image whose copies fill its list of neighbours is its own neighbour still."""
    dataset = labelled(frame(n=60))
    embeddings = torch.nn.functional.normalize(embeddings_of(3, seed=2))[torch.arange(60) % 3]
    rr = retrieve(embeddings, dataset, n_items=15)
    new = KReciprocalReranker(k1=4, k2=2, top_n=top_n).process(rr, dataset, embeddings)
    for q, (ids, distances) in enumerate(zip(new.retrieved_ids, new.distances, strict=True)):
        assert torch.isfinite(distances).all() and len(set(ids.tolist())) == 15
        assert all(i % 3 == q % 3 for i in ids.tolist())


def test_all_the_same_is_no_division_by_zero():
    dataset, embeddings = labelled(frame(n=30)), torch.ones(30, 4)
    new = KReciprocalReranker().process(retrieve(embeddings, dataset, n_items=5), dataset, embeddings)
    assert all(torch.isfinite(d).all() and len(d) == 5 for d in new.distances)


def test_half_precision_and_gradients():
    dataset, embeddings = labelled(frame("separate")), _clustered()
    rr = retrieve(embeddings, dataset, n_items=9)
    expected = KReciprocalReranker().process(rr, dataset, embeddings.half().float())
    for given in (embeddings.half(), embeddings.half().float().requires_grad_(), embeddings.half().numpy()):
        new = KReciprocalReranker().process(rr, dataset, given)
        assert [ids.tolist() for ids in new.retrieved_ids] == [ids.tolist() for ids in expected.retrieved_ids]
        assert not any(d.requires_grad for d in new.distances)


def test_nothing_retrieved_stays_nothing():
    dataset, embeddings = labelled(frame("separate")), _clustered()
    n = len(dataset.get_query_ids())
    empty = RetrievalResults([torch.empty(0)] * n, [torch.empty(0, dtype=torch.long)] * n)
    assert KReciprocalReranker().process(empty, dataset, embeddings).is_empty()


def test_the_pool_holds_each_image_once_until_a_query_is_expanded():
    dataset, embeddings = labelled(frame("overlapping")), _clustered()
    queries, gallery = set(dataset.get_query_ids().tolist()), set(dataset.get_gallery_ids().tolist())
    space = search_space(embeddings, dataset, Settings())
    pool, positions = pool_of(space)
    assert len(pool) == len(queries | gallery)
    np.testing.assert_array_equal(pool.take(positions), space.queries.block(0, len(queries)))
    _, expanded = QueryExpansion().process_in(space, retrieve(embeddings, dataset, n_items=5))
    assert len(pool_of(expanded)[0]) == len(queries) + len(gallery)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k1": 0}, "k1 is 0, expected a whole number of at least 1"),
        ({"k2": 0}, "k2 is 0, expected a whole number of at least 1"),
        ({"lambda_value": 1.5}, "lambda_value is 1.5, expected a number from 0 to 1"),
        ({"top_n": 1}, "top_n is 1, expected a whole number of at least 2"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        KReciprocalReranker(**arguments)
