"""``oml-vit-ext revisited`` hands the composed config to the evaluation, in the folder of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET, succeeds
from oml_vit_ext.commands import revisited_evaluation


def test_the_config_arrives_in_the_folder_of_the_run(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arrived: list[tuple[Path, DictConfig]] = []
    monkeypatch.setattr(revisited_evaluation, "evaluate", lambda cfg: arrived.append((Path.cwd(), cfg)))
    succeeds("revisited", "revisited/evaluate_irt", "dataset_root=data", "checkpoint=x.pth", "--to", "run", *QUIET)
    [(folder, cfg)] = arrived
    assert folder == in_tmp_path / "run" and cfg.dataset_root == "data" and cfg.benchmark == "roxford5k"
