"""What a report says of retrieval results: figures of all, galleries of some, compared with the results themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oml.retrieval.retrieval_results import RetrievalResults

from helpers.photos import small_dataset, small_frame, some_results
from oml_vit_ext.pictures.report import About, Curve, Report, gather, render
from oml_vit_ext.pictures.report.measures import average_precisions, quality

NAMES = ["apple", "<b>pear</b>", "leek", "milk"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("photos")
    df = small_frame(root)
    df["label_name"] = [NAMES[label] for label in df.label]
    return small_dataset(root, df)


def _reversed(results: RetrievalResults) -> RetrievalResults:
    ids = [ids.flip(0) for ids in results.retrieved_ids]
    return RetrievalResults(results.distances, ids, gt_ids=results.gt_ids)


@pytest.fixture(scope="module")
def stages(dataset) -> dict[str, RetrievalResults]:
    before = some_results(dataset)
    return {"first": before, "second": _reversed(before)}


@pytest.fixture(scope="module")
def report(dataset, stages) -> Report:
    embeddings = {"first": torch.randn(12, 6, generator=torch.Generator().manual_seed(1))}
    about = About(
        title="A page",
        curves=[Curve("loss", [1, 2], [3.0, 1.0]), Curve("OVERALL/cmc/1", [2], [0.90667])],
        columns={"seconds": {"second": "7"}},
        terms={"seconds": "how long"},
    )
    return gather(dataset, stages, embeddings, about, top_k={"cmc": (1, 3), "map": (5,)}, n_queries=7, n_hits=4)


def test_figures_are_of_all_queries(report: Report, stages: dict[str, RetrievalResults]):
    assert report.metrics.header == ["", "CMC@1", "CMC@3", "MAP@5", "Dims for 90 %", "seconds"]
    for row, (name, results) in zip(report.metrics.rows, stages.items(), strict=True):
        figures = quality(results, {"cmc": (1, 3), "map": (5,)})
        assert row[:4] == [name, *(f"{value:.3f}" for value in figures.values())]
    assert [row[4:] for row in report.metrics.rows] == [["5 of 6", ""], ["", "7"]]
    assert report.terms["seconds"] == "how long" and "12 queries of 4 labels" in report.summary


def test_galleries_are_the_results(report: Report, stages: dict[str, RetrievalResults]):
    assert len(report.queries) == 7 and report.shown.startswith(
        "7 of the 12 queries: the worst of “second”, those that it changed most against “first”"
    )
    for query in report.queries:
        for stage, results in zip(query.stages, stages.values(), strict=True):
            ids, gt = results.retrieved_ids[query.image].tolist(), set(results.gt_ids[query.image].tolist())
            assert [image for image, _, _ in stage.hits] == ids[:4]
            assert [right for _, right, _ in stage.hits] == [i in gt for i in ids[:4]]
            assert [d for _, _, d in stage.hits] == pytest.approx(results.distances[query.image][:4].tolist(), abs=1e-4)
            ranks = [rank for rank, i in enumerate(ids, start=1) if i in gt]
            assert stage.first_right == (ranks[0] if ranks else 0)
    worst_first = [query.stages[-1].average_precision for query in report.queries]
    assert worst_first == sorted(worst_first)


def test_each_picture_is_there_once_with_its_names(report: Report, dataset):
    used = {query.image for query in report.queries}
    used |= {image for query in report.queries for stage in query.stages for image, _, _ in stage.hits}
    assert set(report.images) == used
    for i, image in report.images.items():
        assert image.label == NAMES[dataset.df.label[i]] and image.path == f"{i}.png" and image.uri


def test_confused_labels_are_those_of_the_last_stage(report: Report, dataset, stages: dict[str, RetrievalResults]):
    labels = dataset.df.label.to_numpy()
    firsts = labels[[int(ids[0]) for ids in stages["second"].retrieved_ids]]
    assert sum(int(row[2]) for row in report.confused.rows) == (firsts != labels).sum()
    assert report.confused.rows[0][3].endswith("% of 3")


def test_charts(report: Report):
    assert [chart.title for chart in report.curves] == ["loss"] and "From 3 to 1" in report.curves[0].text
    assert report.logged_once == [("OVERALL/cmc/1", "0.9067")]
    assert "Logged once: OVERALL/cmc/1 0.9067." in render(report)
    assert "first: 5 of 6" in report.spectra[0].text
    assert "24 pairs of one label, 108 of two labels" in report.similarities[0].text


def test_the_stage_to_compare_with(report: Report, dataset, stages: dict[str, RetrievalResults]):
    assert report.compared == 0
    three = {**stages, "third": stages["first"]}
    assert gather(dataset, three).compared == 1
    report = gather(dataset, three, compared_with="first", n_queries=7)
    assert report.compared == 0 and len(report.queries) == 7


def test_all_queries_of_a_small_set(dataset, stages: dict[str, RetrievalResults]):
    report = gather(dataset, {"first": stages["first"]}, n_queries=50)
    assert report.shown == "All 12 queries, the worst first." and not report.spectra and not report.config


def test_queries_drawn_at_random_and_how_many_changed(dataset, stages: dict[str, RetrievalResults]):
    report = gather(dataset, stages, n_queries=5, n_hits=4, at_random=True)
    drawn = [query.image for query in report.queries]
    assert len(set(drawn)) == 5 and drawn != sorted(drawn)
    assert drawn == [query.image for query in gather(dataset, stages, n_queries=12, at_random=True).queries][:5]
    change = (average_precisions(stages["second"], 4) - average_precisions(stages["first"], 4)).round(4)
    better, worse = (change > 0).sum(), (change < 0).sum()
    assert better and worse
    assert report.shown.startswith("5 of the 12 queries, drawn at random. Of all 12, “second” found more of")
    assert f"more of {better} and less of {worse} than “first” did" in report.shown
    assert report.shown.endswith(f"by average precision; {12 - better - worse} are as before.")
    assert '<option value="drawn">' in render(report) and '<option value="drawn">' not in render(
        gather(dataset, stages)
    )


def test_mistakes(dataset, stages: dict[str, RetrievalResults]):
    with pytest.raises(ValueError, match="stages is empty"):
        gather(dataset, {})
    without = RetrievalResults(stages["first"].distances, stages["first"].retrieved_ids)
    with pytest.raises(ValueError, match="'first' have no ground truth"):
        gather(dataset, {"first": without})
    fewer = RetrievalResults(
        *(list(part)[:5] for part in (without.distances, without.retrieved_ids)), gt_ids=[torch.tensor([1])] * 5
    )
    with pytest.raises(ValueError, match="are of 5 queries, expected 12"):
        gather(dataset, {"first": fewer})
    with pytest.raises(ValueError, match=r"Unknown stage 'frst': did you mean 'first'\?"):
        gather(dataset, stages, compared_with="frst")
    with pytest.raises(ValueError, match="n_hits is 0"):
        gather(dataset, stages, n_hits=0)


def test_nothing_confused(dataset):
    perfect = torch.eye(4).repeat_interleave(3, 0) + 0.01 * torch.rand(12, 4)
    report = gather(dataset, {"perfect": RetrievalResults.from_embeddings(perfect, dataset, n_items=5)})
    assert report.confused is None and report.metrics.rows[0][1] == "1.000"
    assert np.allclose([query.stages[0].average_precision for query in report.queries], 1)
