"""The numbers of a report against plain re-computations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from oml.metrics.embeddings import calc_topological_metrics
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.toy_retrieval import embeddings_of, frame, labelled
from oml_vit_ext.pictures.report.measures import (
    average_precisions,
    confusions,
    cumulative_variance,
    is_right,
    n_components,
    quality,
    similarities,
)


@pytest.fixture(scope="module")
def found() -> tuple[RetrievalResults, np.ndarray]:
    """Retrieval among 150 random embeddings, and their labels."""
    df = frame()
    return RetrievalResults.from_embeddings(embeddings_of(), labelled(df), n_items=12), df.label.to_numpy()


def test_quality_by_loops(found: tuple[RetrievalResults, np.ndarray]):
    results, labels = found
    tops = [labels[ids.numpy()] == labels[q] for q, ids in enumerate(results.retrieved_ids)]
    figures = quality(results, {"cmc": (1, 5), "map": (5,), "precision": ()})
    assert list(figures) == ["CMC@1", "CMC@5", "MAP@5"]
    assert figures["CMC@5"] == pytest.approx(np.mean([top[:5].any() for top in tops]))
    precisions = []
    for top in tops:
        at_hits = [top[: i + 1].mean() for i in range(5) if top[i]]
        precisions.append(np.mean(at_hits) if at_hits else 0.0)
    assert figures["MAP@5"] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert average_precisions(results, 5) == pytest.approx(precisions, abs=1e-6)
    assert all((a == b[:7]).all() for a, b in zip(is_right(results, 7), tops, strict=True))


def test_the_spectrum_is_omls():
    embeddings = embeddings_of() * torch.linspace(0.1, 3, 16)
    cumulative = cumulative_variance(embeddings)
    assert cumulative[-1] == pytest.approx(1) and (np.diff(cumulative) >= 0).all()
    for share in (0.5, 0.9):
        omls = calc_topological_metrics(embeddings, (share,))["pcf"][share]
        assert n_components(cumulative, share) == round(float(omls) * 16)
    assert n_components(cumulative_variance(torch.ones(5, 4))) == 1, "no variance at all"


def test_similarities_by_loops():
    labels, embeddings = frame(n=40, n_labels=5).label.to_numpy(), embeddings_of(40)
    queries, gallery = np.arange(0, 30), np.arange(10, 40)
    counted = similarities(embeddings, labels, queries, gallery, n_bins=10)
    pairs = {True: [], False: []}
    for q in queries:
        for g in gallery:
            if q != g:
                a, b = embeddings[q].numpy(), embeddings[g].numpy()
                pairs[bool(labels[q] == labels[g])].append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert (counted.n_positive, counted.n_negative) == (len(pairs[True]), len(pairs[False]))
    for shares, values in ((counted.positive, pairs[True]), (counted.negative, pairs[False])):
        assert shares == pytest.approx(np.histogram(values, np.linspace(-1, 1, 11))[0] / len(values), abs=0.002)


def test_confusions_by_counting():
    rng = np.random.default_rng(0)
    labels, firsts = rng.integers(0, 4, 200), [*rng.integers(0, 4, 199).tolist(), None]
    counts = Counter((a, b) for a, b in zip(labels.tolist(), firsts, strict=True) if b is not None and a != b)
    rows = confusions(labels, firsts, n=3)
    assert [row.count for row in rows] == sorted(counts.values(), reverse=True)[:3]
    assert all(counts[row.label, row.taken_for] == row.count for row in rows)
    assert all(row.n_queries == (labels == row.label).sum() for row in rows)
