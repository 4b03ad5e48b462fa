"""Configs as Hydra composes them for the scripts."""

from __future__ import annotations

import copy
import functools

from hydra import compose, initialize_config_module
from omegaconf import DictConfig


def composed(name: str, *overrides: str) -> DictConfig:
    """The config ``name`` with overrides; each is composed once per session, and every caller gets a copy."""
    return copy.deepcopy(_composed(name, overrides))


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        return compose(name, list(overrides))
