"""``retrieve`` finds what OML finds, and what a plain loop in float64 finds."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from oml.datasets.dataframe import DFQueryGalleryDataset
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

from helpers.toy_retrieval import DIM, Items, N, embeddings_of, frame, labelled, labels_only, sequences
from oml_vit_ext.retrieval import retrieve, retrieve_qg
from oml_vit_ext.retrieval.retrieve import knn, oml_results
from oml_vit_ext.retrieval.settings import Settings


def _oml(*args, **kwargs) -> RetrievalResults:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # queries without ground truth are meant here
        return RetrievalResults.from_embeddings(*args, **kwargs)


def _assert_same(ours: RetrievalResults, theirs: RetrievalResults) -> None:
    for a, b, ids_a, ids_b in zip(
        ours.distances, theirs.distances, ours.retrieved_ids, theirs.retrieved_ids, strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        # Items may change places, or the last place, only where their distances are equal for float32.
        assert len(set(ids_a.tolist())) == len(ids_a)
        by_id = dict(zip(ids_b.tolist(), b.tolist(), strict=True))
        assert all(abs(by_id.get(i, b[-1].item()) - d) < 1e-5 for i, d in zip(ids_a.tolist(), a.tolist(), strict=True))
    assert (ours.gt_ids is None) == (theirs.gt_ids is None)
    if theirs.gt_ids is not None:
        assert [x.tolist() for x in ours.gt_ids] == [x.tolist() for x in theirs.gt_ids]
    assert {x.dtype for x in ours.retrieved_ids} == {torch.int64}
    assert {x.dtype for x in ours.distances} == {torch.float32}


def _plain(embeddings: Tensor, df: pd.DataFrame, n_items: int) -> list[tuple[list[float], list[int]]]:
    """Per query distances and gallery positions, one pair at a time, in float64."""
    x = embeddings.double().numpy()
    gallery = np.flatnonzero(df.is_gallery)
    found = []
    for query in np.flatnonzero(df.is_query):
        pairs = []
        for position, item in enumerate(gallery):
            same_sequence = "sequence" in df and df.sequence[item] == df.sequence[query]
            if item != query and not same_sequence:
                pairs.append((float(np.sqrt(((x[query] - x[item]) ** 2).sum())), position))
        pairs.sort()
        found.append(([d for d, _ in pairs[:n_items]], [i for _, i in pairs[:n_items]]))
    return found


@pytest.mark.parametrize("n_items", [1, 10, 1000])
@pytest.mark.parametrize("with_sequences", [False, True])
@pytest.mark.parametrize("split", ["all", "separate", "overlapping"])
def test_the_exact_search_equals_the_oml(split: str, with_sequences: bool, n_items: int) -> None:
    df = frame(split)
    if with_sequences:
        df["sequence"] = sequences()
    dataset, embeddings = labelled(df), embeddings_of()
    warnings.simplefilter("ignore")
    _assert_same(retrieve(embeddings, dataset, n_items), _oml(embeddings, dataset, n_items))


def test_unlabelled_data_has_no_ground_truth_like_the_oml() -> None:
    df = frame("overlapping")
    dataset = DFQueryGalleryDataset(Items(N), df)
    ours = retrieve(embeddings_of(), dataset, 7)
    assert ours.gt_ids is None
    _assert_same(ours, _oml(embeddings_of(), dataset, 7))


@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_near_duplicates_get_precise_distances(scale: float) -> None:
    base = torch.nn.functional.normalize(embeddings_of(30))
    embeddings = torch.cat([base, base, base + 1e-4 * embeddings_of(30, seed=1)]) * scale
    df = frame(n=90)
    ours = retrieve(embeddings, labelled(df), 5)
    for got, ids, (distances, _) in zip(ours.distances, ours.retrieved_ids, _plain(embeddings, df, 5), strict=True):
        np.testing.assert_allclose(got, distances, atol=1e-6 * scale, rtol=1e-5)
        assert len(set(ids.tolist())) == 5
    # The copy of each of the first 60 rows is at distance 0, which float32 products alone do not give.
    assert all(ours.distances[query][0] == 0 for query in range(60))


def test_queries_of_long_sequences_get_all_that_the_gallery_has() -> None:
    df = frame("overlapping")
    df["sequence"] = sequences()
    embeddings = embeddings_of()
    embeddings[: N // 2] *= 0.01  # the long sequences fill each other's neighbourhood
    ours = retrieve(embeddings, labelled(df), 20)
    expected = _plain(embeddings, df, 20)
    assert [ids.tolist() for ids in ours.retrieved_ids] == [ids for _, ids in expected]
    assert min(len(ids) for ids in ours.retrieved_ids) == 20


@pytest.mark.parametrize("kind", ["small memory", "numpy", "memory-mapped", "float64", "needs a gradient"])
def test_any_kind_of_embeddings_and_any_memory_give_the_same(kind: str, tmp_path: Path) -> None:
    embeddings, memory_mb = embeddings_of(2500), 256.0
    given = embeddings
    if kind == "small memory":
        memory_mb = 0.01  # the gallery is searched in several blocks
    elif kind == "numpy":
        given = np.asfortranarray(embeddings.numpy())
    elif kind == "memory-mapped":
        np.save(tmp_path / "x.npy", embeddings.numpy())
        given, memory_mb = np.load(tmp_path / "x.npy", mmap_mode="r"), 0.01
    elif kind == "float64":
        given = embeddings.double()
    elif kind == "needs a gradient":
        given = embeddings.clone().requires_grad_()
    df = frame("separate", n=2500)
    df.loc[300:, "is_query"] = False
    df["is_gallery"] = ~df.is_query
    dataset = labelled(df)
    _assert_same(retrieve(given, dataset, 30, memory_mb=memory_mb), _oml(embeddings, dataset, 30))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast(dtype: torch.dtype) -> None:
    half = embeddings_of().to(dtype)
    dataset = labelled(frame())
    _assert_same(retrieve(half, dataset, 9), _oml(half.float(), dataset, 9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_embeddings_on_a_gpu_are_moved() -> None:
    dataset = labelled(frame("overlapping"))
    _assert_same(retrieve(embeddings_of().cuda(), dataset, 9), _oml(embeddings_of(), dataset, 9))


def test_separate_data_sets_equal_the_oml() -> None:
    queries, gallery = embeddings_of(40), embeddings_of(seed=1)
    ours = retrieve_qg(queries, gallery, labels_only(40), labels_only(N), n_items=8)
    theirs = RetrievalResults.from_embeddings_qg(queries, gallery, labels_only(40), labels_only(N), n_items=8)
    _assert_same(ours, theirs)


def test_sequences_of_separate_data_sets_are_compared_by_name() -> None:
    queries, gallery = labels_only(2, ["b", "c"]), labels_only(3, ["a", "b", "c"])
    found = retrieve_qg(embeddings_of(2), embeddings_of(3, seed=1), queries, gallery).retrieved_ids
    assert [sorted(ids.tolist()) for ids in found] == [[0, 2], [0, 1]]  # all but the item of the same name


def test_a_single_query_is_fine() -> None:
    df = frame()
    df["is_query"] = [True] + [False] * (N - 1)
    (ids,) = retrieve(embeddings_of(), labelled(df), 3).retrieved_ids
    assert ids.tolist() == _plain(embeddings_of(), df, 3)[0][1]


def _clustered(n: int) -> Tensor:
    centres = torch.randn(20, DIM)
    return centres[torch.arange(n) % 20] + 0.3 * torch.randn(n, DIM)


@pytest.mark.parametrize(
    ("index", "search_params"),
    [
        ("IVF16,Flat", "nprobe=4"),
        ("HNSW16", "efSearch=64"),
        ("IVF8,PQ8x4", "nprobe=8"),
        ("PCA12,IVF8,Flat", "nprobe=8"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_approximate_indexes_give_true_distances_in_order(index: str, search_params: str) -> None:
    n = 1500
    embeddings, dataset = _clustered(n), labelled(frame(n=n, n_labels=20))
    ours = retrieve(embeddings, dataset, 10, index=index, search_params=search_params)
    exact = retrieve(embeddings, dataset, 10)
    hits = 0
    for query, (distances, ids) in enumerate(zip(ours.distances, ours.retrieved_ids, strict=True)):
        true = (embeddings[query] - embeddings[ids]).norm(dim=1)
        torch.testing.assert_close(distances, true, atol=1e-5, rtol=1e-5)
        assert query not in ids
        hits += len(set(ids.tolist()) & set(exact.retrieved_ids[query].tolist()))
    assert hits / (10 * n) > (0.4 if "P" in index else 0.8)  # PQ and PCA lose something


def test_more_probes_find_more() -> None:
    embeddings, dataset = embeddings_of(1500), labelled(frame(n=1500))
    exact = retrieve(embeddings, dataset, 10).retrieved_ids

    def recall(search_params: str) -> float:
        found = retrieve(embeddings, dataset, 10, index="IVF16,Flat", search_params=search_params).retrieved_ids
        return sum(len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, exact, strict=True)) / 15_000

    assert recall("nprobe=1") < recall("nprobe=4") < recall("nprobe=16") == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_items": 0}, "n_items is 0, expected a whole number of at least 1"),
        ({"n_items": None}, "n_items is None, expected a whole number"),
        ({"index": "IVFlat"}, "index 'IVFlat' cannot be built.*could not parse.*IVF1024,Flat"),
        ({"index": "PQ5"}, "index 'PQ5' cannot be built for dimension 16: .*multiple of the number of subquantizers"),
        ({"index": "IVF1024,Flat"}, r"cannot be trained on a gallery of 150 rows.*training points \(150\).*\(1024\)"),
        ({"index": "IVF2,Flat", "search_params": "probes=3"}, "search_params 'probes=3' cannot be set.*nprobe=16"),
        ({"search_params": "nprobe=3"}, "index 'Flat' is exact"),
        ({"memory_mb": 0}, "memory_mb is 0"),
    ],
)
def test_wrong_settings_are_told_in_one_sentence(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieve(embeddings_of(), labelled(frame()), **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.index_fill(0, torch.tensor([7]), float("nan")), r"NaN or infinity \(the first: row 7\)"),
        (lambda x: x.index_fill(0, torch.tensor([7]), float("-inf")), "NaN or infinity"),
        (lambda x: x.index_fill(0, torch.tensor([7]), 0.0), r"nothing but zeros \(the first: row 7\)"),
        (lambda x: x[1:], "149 embeddings for a dataset of 150 items"),
        (lambda x: x[:, 0], r"shape \(150,\), expected \(rows, dim\)"),
        (lambda x: x.long(), "torch.int64, expected floating-point"),
        (lambda x: x.tolist(), "list, expected a torch tensor"),
        (lambda x: None, "NoneType, expected a torch tensor"),
        (lambda x: x.sum(), r"shape \(\), expected \(rows, dim\)"),
    ],
)
def test_wrong_embeddings_are_told_in_one_sentence(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieve(change(embeddings_of()), labelled(frame()))


def test_query_and_gallery_of_two_models_are_refused() -> None:
    with pytest.raises(ValueError, match="query embeddings have dimension 8, but gallery embeddings have 16"):
        retrieve_qg(embeddings_of(5)[:, :8], embeddings_of(), labels_only(5), labels_only(N))


DISTANCES = [torch.tensor([0.1, 0.2]), torch.tensor([0.3])]
IDS = [torch.tensor([2, 0]), torch.tensor([1])]
GT = [torch.tensor([0]), torch.tensor([], dtype=torch.long)]


@pytest.mark.parametrize("gt_ids", [None, GT])
@pytest.mark.filterwarnings("ignore:Some of the queries")
def test_they_hold_what_the_oml_constructor_puts_there(gt_ids):
    made = vars(oml_results(DISTANCES, IDS, gt_ids))
    assert made == vars(RetrievalResults(DISTANCES, IDS, gt_ids=gt_ids))


def test_queries_without_ground_truth_are_warned_about():
    with pytest.warns(UserWarning, match="don't have available gts"):
        oml_results(DISTANCES, IDS, GT)


def test_an_oml_with_other_fields_gets_its_own_constructor(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[oml_results.__module__], "_FIELDS", {"_something_else"})
    with pytest.raises(RuntimeError, match="must be sorted"):
        oml_results([torch.tensor([2.0, 1.0])], [torch.tensor([0, 1])], None)


def test_images_without_a_label_have_nothing_in_common():
    labels = np.array([1.0, 1.0, np.nan, np.nan])
    x = torch.eye(4)
    _, _, found = knn(x, np.arange(4), np.arange(4), labels_gt=labels, n_items=3, settings=Settings())
    assert [ids.tolist() for ids in found] == [[1], [0], [], []]
