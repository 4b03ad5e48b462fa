"""Learning curves out of TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from oml_vit_ext.pictures.report.curves import learning_curves


def test_the_curves_of_a_training(extractor_run: Path):
    curves = {curve.name: curve for curve in learning_curves(extractor_run)}
    loss = next(curve for name, curve in curves.items() if "loss" in name and len(curve.steps) > 2)
    assert loss.steps == sorted(loss.steps) and all(value > 0 for value in loss.values)
    validated = curves["OVERALL/cmc/1"]
    assert len(validated.steps) == 2 and all(0 <= value <= 1 for value in validated.values)
    assert "epoch" not in curves and next(iter(curves)).find("loss") >= 0


def test_a_resumed_run_is_one_curve_and_the_later_value_counts(tmp_path: Path):
    for version, (steps, value, time) in enumerate([((1, 2, 3), 1.0, 100), ((3, 4), 5.0, 200)]):
        with SummaryWriter(str(tmp_path / f"lightning_logs/version_{version}")) as writer:
            for step in steps:
                writer.add_scalar("loss", value * step, step, walltime=time + step)
    (curve,) = learning_curves(tmp_path)
    assert curve.steps == [1, 2, 3, 4] and curve.values == pytest.approx([1, 2, 15, 20])


def test_a_folder_without_logs(tmp_path: Path):
    assert learning_curves(tmp_path) == []
