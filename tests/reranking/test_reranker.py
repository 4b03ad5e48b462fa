"""STIRReranker: OML's results, one decode per image, a memory bound, clear errors, nothing lost when stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision.transforms as t
from oml.metrics.embeddings import EmbeddingMetrics
from oml.models.meta.siamese import ConcatSiamese, TrivialDistanceSiamese
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.retrieval.postprocessors.pairwise import PairwiseReranker
from oml.retrieval.retrieval_results import RetrievalResults
from torch import nn

from helpers.photos import ARGS, SIZE, livelier, small_dataset, small_frame, small_model, some_results
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking import STIRReranker, score_pairs


def reranker(model: nn.Module, top_n: int = 4, **kwargs: object) -> STIRReranker:
    return STIRReranker(**{"top_n": top_n, "pairwise_model": model, "num_workers": 0, "batch_size": 5, **kwargs})


def assert_same(ours: RetrievalResults, theirs: RetrievalResults) -> None:
    for a, b, c, d in zip(ours.retrieved_ids, theirs.retrieved_ids, ours.distances, theirs.distances, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(c, d, atol=2e-4, rtol=1e-4)  # OML leaves a gap of 1e-4 when it scales


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("use_tta", [False, True])
@pytest.mark.parametrize("top_n", [2, 5, 50])
def test_results_are_the_oml(tmp_path, k: int, use_tta: bool, top_n: int):
    model, dataset = small_model(join_layer=k, use_tta=use_tta), small_dataset(tmp_path)
    rr = some_results(dataset)
    before = [d.clone() for d in rr.distances]
    ours = reranker(model, top_n).process(rr, dataset)
    theirs = PairwiseReranker(top_n, model, num_workers=0, batch_size=7).process(rr, dataset)
    assert_same(ours, theirs)
    assert ours.gt_ids is rr.gt_ids
    assert any(not torch.equal(a, b) for a, b in zip(ours.retrieved_ids, rr.retrieved_ids, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, rr.distances, strict=True))  # the input is left alone


@pytest.mark.parametrize("make", [lambda e: ConcatSiamese(e, [8]), lambda e: TrivialDistanceSiamese(e, output_bias=3)])
def test_models_of_the_oml_work_too(tmp_path, make):
    model, dataset = livelier(make(IRTExtractor(None, **ARGS))), small_dataset(tmp_path)
    rr = some_results(dataset)
    assert_same(
        reranker(model).process(rr, dataset),
        PairwiseReranker(4, model, num_workers=0, batch_size=7).process(rr, dataset),
    )


@pytest.mark.parametrize("k", [0, 2])
def test_each_image_is_decoded_once(tmp_path, k: int):
    dataset = small_dataset(tmp_path)
    rr = some_results(dataset)
    ours = reranker(small_model(join_layer=k))
    ours.process(rr, dataset)
    assert dataset.decoded == dict.fromkeys(range(12), 1)
    stats = ours.last_stats
    assert stats.decodes == stats.images == 12
    assert stats.pairs + stats.reused == 12 * 4 and (stats.reused > 0) == (k > 0)  # mirrored pairs
    assert stats.pairs_per_s > 0

    dataset.decoded.clear()
    PairwiseReranker(4, small_model(), num_workers=0, batch_size=7).process(rr, dataset)
    assert sum(dataset.decoded.values()) == 2 * 12 * 4  # what OML does


@pytest.mark.parametrize("n_images", [2, 3, 6])
def test_memory_bound_is_kept_and_changes_no_score(tmp_path, n_images: int):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr = some_results(dataset)
    expected = reranker(model).process(rr, dataset)
    image_mb = model.encode(dataset[0][dataset.input_tensors_key][None]).nbytes / 1e6
    dataset.decoded.clear()
    bounded = reranker(model, memory_mb=image_mb * (n_images + 0.5))
    assert_same(bounded.process(rr, dataset), expected)
    assert bounded.last_stats.peak_cached_mb == pytest.approx(image_mb * n_images)
    assert 12 < bounded.last_stats.decodes == sum(dataset.decoded.values())


def test_worker_processes_and_batches_give_the_same(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr = some_results(dataset)
    expected = reranker(model).process(rr, dataset)
    assert_same(reranker(model, num_workers=2, batch_size=3, verbose=True).process(rr, dataset), expected)
    assert_same(reranker(model, batch_size=1000).process(rr, dataset), expected)


def test_half_precision_is_finite_sorted_and_on_the_scale(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr = some_results(dataset)
    full = reranker(model).process(rr, dataset)
    half = reranker(model, use_fp16=True).process(rr, dataset)
    for d, whole, first in zip(half.distances, full.distances, rr.distances, strict=True):
        assert d.dtype == torch.float32 and d.isfinite().all() and (d.diff() >= 0).all()
        assert torch.equal(d[4:], first[4:])
        torch.testing.assert_close(d, whole, atol=0.1, rtol=0)


def test_modes_are_restored_and_no_graph_is_kept(tmp_path):
    dataset = small_dataset(tmp_path)
    model = small_model(join_layer=1).train()
    model.freeze()
    modes = {name: module.training for name, module in model.named_modules()}
    result = reranker(model).process(some_results(dataset), dataset)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not any(d.requires_grad or d.is_inference() for d in result.distances)
    model(torch.rand(1, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)).sum().backward()  # training goes on


def test_ragged_results(tmp_path):
    """Queries with none, one and few candidates; a top_n above all of them."""
    model, dataset = small_model(), small_dataset(tmp_path)
    ids = [torch.tensor(x, dtype=torch.long) for x in ([], [3], [5, 1, 0], [2, 4, 6, 7, 8])]
    ids += [torch.zeros(0, dtype=torch.long)] * 8
    rr = RetrievalResults([torch.linspace(0.1, 0.9, len(i)) for i in ids], ids)
    result = reranker(model, top_n=4).process(rr, dataset)
    assert [sorted(i.tolist()) for i in result.retrieved_ids] == [sorted(i.tolist()) for i in ids]
    assert result.retrieved_ids[3][4] == 8
    assert [len(d) for d in result.distances] == [len(i) for i in ids]
    nothing = RetrievalResults([torch.zeros(0)] * 12, [torch.zeros(0, dtype=torch.long)] * 12)
    assert reranker(model).process(nothing, dataset).is_empty()


def test_one_query_one_gallery_image_and_no_labels(tmp_path):
    df = small_frame(tmp_path, n=4).assign(is_query=[True, False, False, False], is_gallery=[False, True, False, False])
    dataset = small_dataset(tmp_path, df, labeled=False)
    rr = RetrievalResults([torch.tensor([0.3])], [torch.tensor([0])])
    model = small_model()
    result = reranker(model).process(rr, dataset)
    assert result.retrieved_ids[0].tolist() == [0]
    image_1, image_2 = (dataset[i][dataset.input_tensors_key][None] for i in (0, 1))
    with torch.no_grad():
        torch.testing.assert_close(result.distances[0], model.predict(image_1, image_2))


def test_equal_scores_keep_the_first_stages_order(tmp_path):
    class Constant(TrivialDistanceSiamese):
        def predict(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x1),), 0.5)

    dataset = small_dataset(tmp_path)
    rr = some_results(dataset)
    result = reranker(Constant(IRTExtractor(None, **ARGS)), top_n=6).process(rr, dataset)
    assert all(torch.equal(a, b) for a, b in zip(result.retrieved_ids, rr.retrieved_ids, strict=True))


def test_budget_touches_only_close_queries(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr = some_results(dataset)
    everything = reranker(model).process(rr, dataset)
    half = reranker(model, budget=0.5)
    result = half.process(rr, dataset)
    assert half.last_stats.pairs == 6 * 4
    gaps = torch.stack([d[1] - d[0] for d in rr.distances])
    for q, gap in enumerate(gaps):
        source = everything if gap < gaps.sort().values[6] else rr
        assert torch.equal(result.retrieved_ids[q], source.retrieved_ids[q])
    margin = reranker(model, margin=gaps.sort().values[6].item())
    assert_same(margin.process(rr, dataset), result)


def test_from_yaml_in_the_oml_metrics(tmp_path):
    cfg = {
        "name": "stir_reranker",
        "args": {
            "top_n": 3,
            "num_workers": 0,
            "batch_size": 4,
            "memory_mb": 100,
            "budget": 0.9,
            "pairwise_model": {
                "name": "stir",
                "args": {"join_layer": 1, "extractor": {"name": "irt", "args": {"weights": None, **ARGS}}},
            },
        },
    }
    postprocessor = get_postprocessor_by_cfg(cfg)
    assert isinstance(postprocessor, PairwiseReranker) and postprocessor.top_n == 3
    dataset = small_dataset(tmp_path)
    metrics = EmbeddingMetrics(dataset, postprocessor=postprocessor, cmc_top_k=(1,), map_top_k=(3,), verbose=False)
    metrics.setup(num_samples=12)
    metrics.update(torch.randn(12, 5), indices=list(range(12)))
    assert 0 <= metrics.compute_metrics()["OVERALL"]["cmc"][1] <= 1
    assert postprocessor.last_stats.decodes == 12


# --- bad input


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"top_n": 1}, "top_n is 1, expected a whole number of at least 2"),
        ({"top_n": 0}, "top_n is 0"),
        ({"top_n": 2.5}, "top_n is 2.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"memory_mb": 0}, "memory_mb is 0"),
        ({"budget": 1.5}, "budget is 1.5, expected a number from 0 to 1"),
        ({"budget": "0.5"}, "budget is '0.5', expected a number from 0 to 1"),
        ({"margin": "1"}, "margin is '1', expected a difference of two distances"),
        ({"memory_mb": None}, "memory_mb is None, expected a finite number"),
        ({"scores_file": 3}, "scores_file is 3, expected the path of an .npz file"),
        ({"margin": -1.0}, "margin is -1.0"),
        ({"budget": 0.5, "margin": 0.5}, "Both budget and margin"),
    ],
)
def test_wrong_arguments(kwargs: dict, message: str):
    with pytest.raises(ValueError, match=message):
        reranker(small_model(), **kwargs)


def test_what_is_no_pairwise_model():
    with pytest.raises(TypeError, match="pairwise_model is a IRTExtractor, expected a pairwise model"):
        reranker(IRTExtractor(None, **ARGS))


def test_results_of_another_data_set(tmp_path):
    dataset = small_dataset(tmp_path)
    rr = RetrievalResults([torch.tensor([0.1])], [torch.tensor([0])])
    with pytest.raises(ValueError, match="have 1 query, but the data set has 12"):
        reranker(small_model()).process(rr, dataset)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_corrupt_image_is_named(tmp_path, num_workers: int):
    dataset = small_dataset(tmp_path)
    rr = some_results(dataset)
    (tmp_path / "7.png").write_bytes(b"not a picture")
    with pytest.raises(
        RuntimeError, match=r"image '.*7\.png' cannot be read.*Replace the file, or take its row out"
    ) as e:
        reranker(small_model(), num_workers=num_workers).process(rr, dataset)
    assert "Traceback" not in str(e.value)


def test_images_of_different_sizes_are_named(tmp_path):
    df = small_frame(tmp_path)
    first = (tmp_path / "3.png").read_bytes()
    small_frame(tmp_path, side=56)
    (tmp_path / "3.png").write_bytes(first)
    dataset = small_dataset(tmp_path, df, transform=t.Compose([t.ToTensor()]))
    with pytest.raises(ValueError, match=r"same size.*3\.png.*\(3, 40, 40\).*crop or resize"):
        reranker(small_model()).process(some_results(dataset), dataset)


def test_nan_scores_name_the_pair(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    model.head[0].weight.data[0, 0] = float("nan")
    with pytest.raises(RuntimeError, match=r"gives nan for image '.*\.png' and image '.*\.png'.*weights for NaN"):
        reranker(model).process(some_results(dataset), dataset)


def test_memory_for_less_than_a_pair(tmp_path):
    dataset = small_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"memory_mb is 0\.001, but one image takes .* a pair needs two"):
        reranker(small_model(), memory_mb=0.001).process(some_results(dataset), dataset)


# --- interrupted and continued


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr, file = some_results(dataset), tmp_path / "scores" / "pairs.npz"
    expected = reranker(model).process(rr, dataset)

    whole_distance, calls = model.distance, []

    def stopped_after_three(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        calls.append(len(a))
        if len(calls) > 3:
            raise KeyboardInterrupt
        return whole_distance(a, b)

    monkeypatch.setattr(model, "distance", stopped_after_three)
    with pytest.raises(KeyboardInterrupt):
        reranker(model, scores_file=file).process(rr, dataset)
    monkeypatch.undo()
    assert sorted(p.name for p in file.parent.iterdir()) == [".pairs.npz.lock", "pairs.npz"]  # no half-written file

    second = reranker(model, scores_file=file)
    assert_same(second.process(rr, dataset), expected)
    assert second.last_stats.reused == 15 and second.last_stats.pairs == 48 - 15
    third = reranker(model, scores_file=file)
    assert_same(third.process(rr, dataset), expected)
    assert third.last_stats.pairs == third.last_stats.decodes == 0
    larger = reranker(model, top_n=6, scores_file=file)
    assert_same(larger.process(rr, dataset), reranker(model, top_n=6).process(rr, dataset))
    assert larger.last_stats.pairs == 12 * 2


def test_scores_of_something_else_are_refused(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr, file = some_results(dataset), tmp_path / "pairs.npz"
    reranker(model, scores_file=file).process(rr, dataset)
    with torch.no_grad():
        model.head[0].bias[0] += 1
    for other in (reranker(model, scores_file=file), reranker(small_model(join_layer=1), scores_file=file)):
        with pytest.raises(ValueError, match=r"pairs\.npz' holds scores of another model.*delete it or name another"):
            other.process(rr, dataset)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RuntimeError, match="is not a file of scores"):
        reranker(model, scores_file=file).process(rr, dataset)


def test_two_rerankers_with_one_file_in_threads_and_a_model_in_training(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    rr, file = some_results(dataset), tmp_path / "pairs.npz"
    expected = reranker(model).process(rr, dataset)
    model.train()
    with ThreadPoolExecutor(4) as threads:
        results = list(
            threads.map(lambda _: reranker(model, scores_file=file, batch_size=2).process(rr, dataset), range(12))
        )
    for result in results:
        assert_same(result, expected)
    assert all(module.training for module in model.modules())
    last = reranker(model, scores_file=file)
    last.process(rr, dataset)
    assert last.last_stats.pairs == 0


def test_score_pairs_by_itself(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    pairs = np.array([(3, 1), (0, 5), (3, 1), (2, 2)])
    scores, stats = score_pairs(model, dataset, pairs, batch_size=2)
    images = torch.stack([dataset[i][dataset.input_tensors_key] for i in range(6)])
    with torch.no_grad():
        torch.testing.assert_close(scores, model.predict(images[pairs[:, 0]], images[pairs[:, 1]]))
    assert stats.pairs == 4 and stats.images == stats.decodes == 5
