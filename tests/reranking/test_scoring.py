"""Distances of pairs: those of the model itself, told as they come, at a cost that is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oml.models.meta.siamese import TrivialDistanceSiamese
from torch import Tensor

from helpers.photos import ARGS, livelier, small_dataset, small_model
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.reranking.scoring import ScoringStats, score_pairs

PAIRS = np.random.default_rng(0).integers(12, size=(30, 2))


def _plain(model, dataset, pairs: np.ndarray) -> Tensor:
    """One pair at a time, both images decoded each time."""
    found = []
    with torch.no_grad():
        for pair in pairs:
            first, second = (dataset[int(i)][dataset.input_tensors_key][None] for i in pair)
            found.append(model.predict(first, second))
    return torch.cat(found)


@pytest.mark.parametrize(
    "make",
    [
        lambda: small_model(),
        lambda: small_model(join_layer=2, use_tta=True),
        lambda: livelier(TrivialDistanceSiamese(IRTExtractor(None, **ARGS), output_bias=3)),
    ],
    ids=["stacked", "joined, both orders", "of OML"],
)
@pytest.mark.parametrize("n_images", [3, 1000])
def test_distances_are_those_of_the_model(tmp_path, make, n_images: int):
    model, dataset = make(), small_dataset(tmp_path)
    image = dataset[0][dataset.input_tensors_key][None]
    one_mb = (model.encode(image) if hasattr(model, "encode") else image).nbytes / 1e6
    expected = _plain(model, dataset, PAIRS)
    dataset.decoded.clear()
    scores, stats = score_pairs(model, dataset, PAIRS, batch_size=7, memory_mb=n_images * one_mb * 1.01)
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=1e-5)
    assert scores.std() > 1e-4, "equal scores would be right for any pair"
    assert stats.pairs == 30 and stats.images == len(np.unique(PAIRS))
    assert stats.decodes == sum(dataset.decoded.values()) and (stats.decodes == stats.images) == (n_images == 1000)
    assert stats.peak_cached_mb <= n_images * one_mb * 1.01


def test_scores_are_told_as_they_come(tmp_path):
    model, dataset, told = small_model(), small_dataset(tmp_path), []
    scores, _ = score_pairs(model, dataset, PAIRS, batch_size=4, on_scores=lambda *chunk: told.append(chunk))
    positions = np.concatenate([rows for rows, _ in told])
    assert sorted(positions.tolist()) == list(range(30)) and len(told) >= 30 / 4
    assert torch.equal(torch.cat([found for _, found in told]), scores[positions])


def test_no_pairs_cost_nothing(tmp_path):
    dataset = small_dataset(tmp_path)
    scores, stats = score_pairs(small_model(), dataset, np.zeros((0, 2), dtype=np.int64), batch_size=4)
    assert scores.shape == (0,) and stats == ScoringStats() and not dataset.decoded
    assert stats.pairs_per_s == 0 and ScoringStats(pairs=30, seconds=1.5).pairs_per_s == 20


def test_modes_come_back_and_scores_are_plain_numbers(tmp_path):
    model, dataset = small_model().train(), small_dataset(tmp_path)
    model.extractor.eval()
    before = [module.training for module in model.modules()]
    scores, _ = score_pairs(model, dataset, PAIRS[:5], batch_size=4, half=True)
    assert [module.training for module in model.modules()] == before
    assert scores.dtype == torch.float32 and not scores.requires_grad
    torch.testing.assert_close(scores, _plain(model.eval(), dataset, PAIRS[:5]), atol=0.1, rtol=0)


def test_what_cannot_be_scored_is_an_error(tmp_path):
    model, dataset = small_model(), small_dataset(tmp_path)
    with pytest.raises(ValueError, match=r"memory_mb is 0\.001, but one image takes .* MB and a pair needs two"):
        score_pairs(model, dataset, PAIRS, batch_size=4, memory_mb=0.001)
    model.head[0].weight.data.fill_(float("inf"))
    message = r"gives (nan|inf) for image '.*[0-9]\.png' and image '.*[0-9]\.png' \(and for 3 more pairs"
    with pytest.raises(RuntimeError, match=message):
        score_pairs(model, dataset, PAIRS, batch_size=4)
