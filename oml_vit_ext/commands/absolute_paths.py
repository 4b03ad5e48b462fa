"""Makes the paths of a config absolute: Hydra runs commands in the folder of the run, not where you typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf, open_dict

from oml_vit_ext.common.home import with_home

_PATHS = ("dataset_root", "data_dir", "save_dir", "embeddings_cache_dir", "scores_file", "pca")
_FILES_OR_NAMES = ("pretrained", "checkpoint", "first_stage_checkpoint", "fusion")
_OF_PARTS = ("weights", "fusion", "pca", "dataset_root")  # arguments that name a file or a folder, or something else


def with_absolute_paths(cfg: DictConfig) -> DictConfig:
    """The same config, with its paths made absolute as seen from where the script was started.

    ``save_dir: .`` stays: it stands for the folder of the run.
    """
    cfg = with_homes(cfg)
    with open_dict(cfg):
        for key in _PATHS:
            if cfg.get(key) not in (None, "."):
                cfg[key] = to_absolute_path(cfg[key])
        for key in _FILES_OR_NAMES:
            given = None if OmegaConf.is_missing(cfg, key) else cfg.get(key)
            # Else it is a name of pretrained weights, or fitted values.
            if isinstance(given, str) and given and Path(to_absolute_path(given)).is_file():
                cfg[key] = to_absolute_path(given)
        for key in map(str, cfg):
            if not OmegaConf.is_missing(cfg, key) and not OmegaConf.is_interpolation(cfg, key):
                _in_parts(cfg[key])
    return cfg


def with_homes(cfg: DictConfig) -> DictConfig:
    """The same config, with the user's folder for ``~/`` at the start of any value."""
    cfg = cfg.copy()
    with open_dict(cfg):
        _expand_homes(cfg)
    return cfg


def _expand_homes(part: Any) -> None:
    for key in range(len(part)) if OmegaConf.is_list(part) else list(part):
        if OmegaConf.is_missing(part, key) or OmegaConf.is_interpolation(part, key):
            continue
        if isinstance(part[key], str):
            if part[key].startswith("~/"):
                part[key] = with_home(part[key])
        elif OmegaConf.is_config(part[key]):
            _expand_homes(part[key])


def _in_parts(part: Any) -> None:
    """The same for a config of one's own, which names files where they are used: ``extractor.args.weights``."""
    if OmegaConf.is_list(part):
        for item in part:
            _in_parts(item)
    elif OmegaConf.is_dict(part):
        for key in part:
            if OmegaConf.is_missing(part, key) or OmegaConf.is_interpolation(part, key):
                continue
            if key in _OF_PARTS and isinstance(part[key], str) and Path(to_absolute_path(part[key])).exists():
                part[key] = to_absolute_path(part[key])
            _in_parts(part[key])
