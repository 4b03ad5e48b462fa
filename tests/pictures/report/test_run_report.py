"""The report of a run says what OML's own validation of it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from oml.lightning.pipelines.validate import extractor_validation_pipeline

from helpers.runs import written_down
from helpers.trainings import IRT, validation_config
from oml_vit_ext.pictures.report import report_of_run


def test_an_extractors_run(extractor_run: Path):
    report = report_of_run(extractor_run, n_queries=5, device="cpu")
    checkpoint = torch.load(extractor_run / "checkpoints/best.ckpt", weights_only=True)
    (callback,) = checkpoint["callbacks"].values()
    assert float(report.metrics.rows[0][1]) == pytest.approx(float(callback["best_model_score"]), abs=6e-4)
    assert report.metrics.header[1:5] == ["CMC@1", "CMC@5", "CMC@10", "MAP@5"]
    assert len(report.queries) == 5 and report.stages == ["extractor_with_momentum"]
    assert "OVERALL/cmc/1" in {chart.title for chart in report.curves} | {name for name, _ in report.logged_once}
    assert "name: extractor_with_momentum" in report.config
    assert dict(report.facts)["Model"] == "extractor_with_momentum, vit_tiny_patch16_224"


def test_a_rerankers_run(reranker_run: Path):
    report = report_of_run(reranker_run, n_queries=5, device="cpu")
    checkpoint = torch.load(reranker_run / "checkpoints/best.ckpt", weights_only=True)
    (callback,) = checkpoint["callbacks"].values()
    assert report.stages == ["first stage", "re-ranked"]
    first, second = report.metrics.rows
    assert float(second[1]) == pytest.approx(float(callback["best_model_score"]), abs=6e-4)
    assert first[2:4] == second[2:4], "two hits change places: CMC@5 and CMC@10 stay"
    assert "the first 2 hits of each query" in report.terms["re-ranked"]


def test_a_validation_with_a_postprocessor_that_searches_again(
    extractor_run: Path, data_of_runs: Path, in_tmp_path: Path
):
    cfg = validation_config(data_of_runs)
    cfg["extractor"] = {"name": "irt", "args": {**IRT["args"], "weights": str(extractor_run / "checkpoints/best.ckpt")}}
    cfg["postprocessor"] = {"name": "k_reciprocal", "args": {"k1": 6, "k2": 3}}
    logs = extractor_validation_pipeline(cfg)[1][0]
    written_down(cfg, in_tmp_path / "run", in_tmp_path)
    report = report_of_run(in_tmp_path / "run", n_queries=5, device="cpu")
    rows = [dict(zip(report.metrics.header, row, strict=True)) for row in report.metrics.rows]
    assert rows[1]["CMC@1"] == f"{float(logs['OVERALL/cmc/1']):.3f}" and rows[0]["MAP@5"] != rows[1]["MAP@5"]
    assert report.terms["re-ranked"] == "hits after the postprocessor KReciprocalReranker"


def test_a_validation_with_a_postprocessor_of_oml(extractor_run: Path, data_of_runs: Path, in_tmp_path: Path):
    cfg = validation_config(data_of_runs)
    cfg["extractor"] = {"name": "irt", "args": {**IRT["args"], "weights": str(extractor_run / "checkpoints/best.ckpt")}}
    cfg["postprocessor"] = {"name": "constant_thresholding", "args": {"th": 10.0}}
    logs = extractor_validation_pipeline(cfg)[1][0]
    written_down(cfg, in_tmp_path / "run", in_tmp_path)
    report = report_of_run(in_tmp_path / "run", n_queries=5, device="cpu")
    row = dict(zip(report.metrics.header, report.metrics.rows[1], strict=True))
    assert row["CMC@1"] == f"{float(logs['OVERALL/cmc/1']):.3f}"


def test_a_run_with_the_reranker_of_another(extractor_run: Path, reranker_run: Path):
    alone = report_of_run(extractor_run, n_queries=5, device="cpu")
    both = report_of_run(extractor_run, reranker=reranker_run, n_queries=5, device="cpu")
    assert both.metrics.rows[0][1:] == alone.metrics.rows[0][1:]
    assert both.stages == ["first stage", "re-ranked"]
