"""``oml-vit-ext train-reranker`` hands the composed config to OML's pipeline, in the folder of the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET, succeeds
from oml_vit_ext.commands import train_reranker


def test_the_config_arrives_in_the_folder_of_the_run(
    photos: Path, frame: pd.DataFrame, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrived: list[tuple[Path, DictConfig]] = []
    monkeypatch.setattr(train_reranker, "train_pair_model", lambda cfg: arrived.append((Path.cwd(), cfg)))
    (in_tmp_path / "model.pth").touch()
    arguments = [
        "stir/train_reranker_photos",
        "first_stage_checkpoint=model.pth",
        f"dataset_root={photos}",
        "max_epochs=7",
        "--to",
        "run",
        *QUIET,
    ]
    monkeypatch.setattr("oml_vit_ext.commands.mistakes.find_mistakes", lambda cfg: [])
    (in_tmp_path / "run/checkpoints").mkdir(parents=True)
    (in_tmp_path / "run/checkpoints/best.ckpt").touch()
    printed = succeeds("train-reranker", *arguments)
    assert "Written: run/checkpoints/best.ckpt" in printed and "--rerank 5 --reranker run" in printed
    [(folder, cfg)] = arrived
    assert folder == in_tmp_path / "run" and cfg.max_epochs == 7 and cfg.dataset_root == str(photos)
