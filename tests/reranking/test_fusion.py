"""Fusion against its formula in plain Python, the fit against trying everything, files, and a re-ranker with it."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from oml.interfaces.models import IPairwiseModel
from torch import Tensor

from helpers.photos import small_dataset, small_model, some_results
from oml_vit_ext.reranking import Fusion, STIRReranker, fit_fusion, save_fusion
from oml_vit_ext.reranking.fusion import FIRST_STAGE_WEIGHTS, TEMPERATURES, fusion_of
from oml_vit_ext.reranking.reranker import merge_distances


def plainly(weight: float, temperature: float, distance: float, score: float) -> float:
    logit = math.log(score / (1 - score))
    return weight * distance + (1 - weight) / (1 + math.exp(-temperature * logit))


@pytest.mark.parametrize("weight, temperature", [(0.0, 1.0), (0.3, 0.5), (0.8, 3.0), (1.0, 2.0)])
def test_the_formula(weight: float, temperature: float):
    d, s = torch.rand(3, 4), torch.rand(3, 4) * 0.98 + 0.01
    fused = Fusion(weight, temperature)(d, s)
    for i, j in product(range(3), range(4)):
        expected = plainly(weight, temperature, float(d[i, j]), float(s[i, j]))
        assert float(fused[i, j]) == pytest.approx(expected, abs=1e-5)


def test_sure_pairs_stay_finite_and_their_order_stays():
    fused = Fusion(0.0, 4.0)(torch.zeros(4), torch.tensor([0.0, 1e-5, 1 - 1e-5, 1.0]))
    assert fused.isfinite().all() and (fused.diff() >= 0).all()


def some_queries(n: int = 40) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Queries of two to five candidates; both opinions are a little better than chance."""
    distances, scores, right = [], [], []
    for _ in range(n):
        length = int(torch.randint(2, 6, ()))
        is_right = torch.rand(length) < 0.4
        d = torch.rand(length) + 0.2 * ~is_right
        order = d.argsort()
        distances.append(d[order])
        right.append(is_right[order])
        scores.append((torch.rand(length) * 0.8 + 0.1 * ~is_right[order] + 0.05).clamp(0.01, 0.99))
    return distances, scores, right


def test_the_fit_is_the_best_of_the_grid():
    distances, scores, right = some_queries()

    def cmc1(weight: float, temperature: float) -> float:
        hits = 0
        for d, s, r in zip(distances, scores, right, strict=True):
            fused = [plainly(weight, temperature, float(a), float(b)) for a, b in zip(d, s, strict=True)]
            hits += bool(r[min(range(len(fused)), key=fused.__getitem__)])
        return hits / len(distances)

    found = fit_fusion(distances, scores, right)
    grid = {(w, t): cmc1(w, t) for w in FIRST_STAGE_WEIGHTS for t in TEMPERATURES}
    assert found.cmc1 == pytest.approx(max(grid.values()))
    assert found.cmc1 == pytest.approx(grid[found.fusion.first_stage_weight, found.fusion.temperature])
    assert found.cmc1_first_stage == pytest.approx(grid[1.0, 1.0]) and found.cmc1 > found.cmc1_first_stage
    assert found.curve == pytest.approx({w: max(grid[w, t] for t in TEMPERATURES) for w in FIRST_STAGE_WEIGHTS})


def test_a_pair_model_that_knows_nothing_is_left_out():
    distances, _, right = some_queries()
    upside_down = [torch.where(r, 0.9, 0.1) for r in right]
    assert fit_fusion(distances, upside_down, right).fusion.first_stage_weight == 1.0


def test_a_first_stage_that_knows_nothing_is_left_out():
    _, _, right = some_queries()
    right = [r for r in right if r.any()]
    equal = [torch.zeros(len(r)) for r in right]
    found = fit_fusion(equal, [torch.where(r, 0.4, 0.6) for r in right], right, first_stage_weights=[0.0])
    assert (found.fusion, found.cmc1) == (Fusion(0.0, 1.0), 1.0)


def test_queries_that_do_not_belong_together_are_refused():
    distances, scores, right = some_queries()
    for wrong in ((distances[1:], scores, right), (distances, scores, right[1:]), ([], [], [])):
        with pytest.raises(ValueError, match="expected the same candidates of at least one query"):
            fit_fusion(*wrong)


def test_a_file_and_back(tmp_path: Path):
    save_fusion(Fusion(0.65, 2.0), tmp_path / "fusion.json", {"queries": 12})
    assert json.loads((tmp_path / "fusion.json").read_text())["fitted_on"] == {"queries": 12}
    same = (
        tmp_path / "fusion.json",
        str(tmp_path / "fusion.json"),
        OmegaConf.create({"first_stage_weight": 0.65, "temperature": 2.0}),
    )
    assert [fusion_of(given) for given in same] == [Fusion(0.65, 2.0)] * 3


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"first_stage_weight": 0.6, "temp', "is not a whole JSON file"),
        ("[0.6, 1.0]", "holds a list"),
        ('{"first_stage_weight": 0.6}', "has no temperature, expected first_stage_weight and temperature"),
        ('{"first_stage_weigth": 0.6, "temperature": 1}', "did you mean 'first_stage_weight'"),
        ('{"first_stage_weight": 1.6, "temperature": 1}', "first_stage_weight is 1.6, expected a number from 0 to 1"),
        ('{"first_stage_weight": 0.6, "temperature": 0}', "temperature is 0, expected a positive number"),
        ('{"first_stage_weight": "0.6", "temperature": 1}', "first_stage_weight is '0.6'"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, content: str, message: str):
    (tmp_path / "fusion.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        fusion_of(tmp_path / "fusion.json")
    with pytest.raises(FileNotFoundError, match="one that save_fusion has written"):
        fusion_of(tmp_path / "none.json")


def reranker(model: IPairwiseModel, **kwargs: object) -> STIRReranker:
    return STIRReranker(top_n=4, pairwise_model=model, num_workers=0, batch_size=5, **kwargs)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("choice", [{}, {"budget": 0.5}])
def test_reranked_by_the_formula(tmp_path: Path, k: int, choice: dict[str, float]):
    model, dataset = small_model(join_layer=k), small_dataset(tmp_path)
    rr = some_results(dataset)
    alone = reranker(model, **choice).process(rr, dataset)
    fused = reranker(model, **choice, fusion={"first_stage_weight": 0.4, "temperature": 0.7}).process(rr, dataset)
    n_changed = 0
    for q, (ids, d) in enumerate(zip(rr.retrieved_ids, rr.distances, strict=True)):
        n_changed += not torch.equal(fused.retrieved_ids[q], alone.retrieved_ids[q])
        if torch.equal(alone.retrieved_ids[q], ids) and torch.equal(alone.distances[q], d):  # not chosen by the budget
            assert torch.equal(fused.retrieved_ids[q], ids)
            continue
        images = [torch.stack([dataset[i][dataset.input_tensors_key] for i in (q, int(j))]) for j in ids[:4]]
        with torch.inference_mode():
            scores = [float(model.predict(x[:1], x[1:])) for x in images]
        expected = [plainly(0.4, 0.7, float(a), s) for a, s in zip(d, scores, strict=False)]
        new, order = torch.tensor(expected).sort(stable=True)
        torch.testing.assert_close(fused.distances[q], merge_distances(new, d[4:]), atol=1e-4, rtol=1e-4)
        assert torch.equal(fused.retrieved_ids[q], torch.cat([ids[:4][order], ids[4:]]))
    assert n_changed > 0


def test_the_first_stage_alone_changes_nothing(tmp_path: Path):
    dataset = small_dataset(tmp_path)
    rr = some_results(dataset)
    same = reranker(small_model(), fusion=Fusion(1.0)).process(rr, dataset)
    for found, given in ((same.retrieved_ids, rr.retrieved_ids), (same.distances, rr.distances)):
        assert all(torch.equal(a, b) for a, b in zip(found, given, strict=True))


class DistanceBeyondOne(IPairwiseModel):
    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return (x1 - x2).abs().sum(dim=(1, 2, 3))

    predict = forward


def test_a_model_without_probabilities_is_refused(tmp_path: Path):
    dataset = small_dataset(tmp_path)
    with pytest.raises(ValueError, match="expected probabilities from 0 to 1"):
        reranker(DistanceBeyondOne(), fusion=Fusion(0.5)).process(some_results(dataset), dataset)


@pytest.mark.parametrize("given", [False, 3, 0.5, [0.6, 2.0], b"fusion.json"])
def test_what_is_no_fusion_is_told(given: Any):
    with pytest.raises(
        ValueError, match=r"fusion is .*, expected a mapping of first_stage_weight and temperature, a file"
    ):
        fusion_of(given)
