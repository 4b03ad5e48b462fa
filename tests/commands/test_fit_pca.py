"""``oml-vit-ext fit-pca`` hands the composed config to OML's pipeline, in the folder of the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET, succeeds
from oml_vit_ext.commands import fit_pca


def test_the_config_arrives_in_the_folder_of_the_run(
    photos: Path, frame: pd.DataFrame, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrived: list[tuple[Path, DictConfig]] = []
    monkeypatch.setattr(fit_pca, "fit_pca_of", lambda cfg: arrived.append((Path.cwd(), cfg)))
    (in_tmp_path / "model.pth").touch()
    arguments = [
        "irt/validate_photos",
        "irt/variant=irt_r_pca128",
        "checkpoint=model.pth",
        "pca=new",
        f"dataset_root={photos}",
        "bs_val=7",
        "--to",
        "run",
        *QUIET,
    ]
    monkeypatch.setattr("oml_vit_ext.commands.mistakes.find_mistakes", lambda cfg: [])
    succeeds("fit-pca", *arguments)
    [(folder, cfg)] = arrived
    assert folder == in_tmp_path / "run" and cfg.bs_val == 7 and cfg.dataset_root == str(photos)


def test_an_extractor_without_pca_is_refused():
    from helpers.configs import composed

    with pytest.raises(ValueError, match="expected 'extractor_with_pca'"):
        fit_pca.fit_pca_of(composed("irt/validate_photos", "checkpoint=model.pth"))
