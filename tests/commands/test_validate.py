"""``oml-vit-ext validate`` of a config; that of a run: ``test_train.py``."""

from __future__ import annotations

from pathlib import Path

import oml.lightning.pipelines.validate as pipeline
import pandas as pd
import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET, fails, succeeds
from oml_vit_ext.commands import validate


def test_the_config_arrives_in_the_folder_of_the_run(
    photos: Path, frame: pd.DataFrame, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrived: list[tuple[Path, DictConfig]] = []

    def arrive(cfg: DictConfig) -> None:
        pipeline.pprint("the whole config")
        arrived.append((Path.cwd(), cfg))

    monkeypatch.setattr(validate, "validate_extractor", arrive)
    printed = succeeds(
        "validate", "irt/validate_photos", f"dataset_root={photos}", "irt/variant=irt_o", "--to", "run", *QUIET
    )
    [(folder, cfg)] = arrived
    assert "the whole config" not in printed, "OML prints it, Hydra keeps it in a file"
    assert folder == in_tmp_path / "run" and cfg.metric_args.cmc_top_k == [1, 5]


def test_a_checkpoint_that_is_missing_is_told(photos: Path, frame: pd.DataFrame):
    printed = fails("validate", "irt/validate_photos", f"dataset_root={photos}")
    assert "checkpoint is not set: say checkpoint=VALUE." in printed
