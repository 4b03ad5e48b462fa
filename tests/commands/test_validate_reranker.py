"""``oml-vit-ext validate-reranker`` hands the composed config to OML's pipeline, in the folder of the run."""

from __future__ import annotations

from pathlib import Path

import oml.lightning.pipelines.validate as pipeline
import pandas as pd
import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET, succeeds
from oml_vit_ext.commands import validate_reranker


def test_the_config_arrives_in_the_folder_of_the_run(
    photos: Path, frame: pd.DataFrame, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrived: list[tuple[Path, DictConfig]] = []

    def arrive(cfg: DictConfig) -> None:
        pipeline.pprint("the whole config")
        arrived.append((Path.cwd(), cfg))

    monkeypatch.setattr(validate_reranker, "validate_pair_model", arrive)
    (in_tmp_path / "model.pth").touch()
    arguments = [
        "stir/validate_reranker_photos",
        "first_stage_checkpoint=model.pth",
        "checkpoint=model.pth",
        f"dataset_root={photos}",
        "bs=7",
        "--to",
        "run",
        *QUIET,
    ]
    monkeypatch.setattr("oml_vit_ext.commands.mistakes.find_mistakes", lambda cfg: [])
    printed = succeeds("validate-reranker", *arguments)
    [(folder, cfg)] = arrived
    assert "the whole config" not in printed, "OML prints it, Hydra keeps it in a file"
    assert folder == in_tmp_path / "run" and cfg.bs == 7 and cfg.dataset_root == str(photos)
