"""A training that has been run, whose checkpoints the tests read, damage and go on from."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.trainings import extractor_config, train


@pytest.fixture(autouse=True)
def changes_are_logged() -> Iterator[None]:
    """Commands that ran before in this process have silenced them."""
    logger = logging.getLogger("oml_vit_ext.oml_patches")
    level = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def run(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch."""
    return train(extractor_config(demo_slice, max_epochs=1), tmp_path_factory.mktemp("run")).parents[1]


@pytest.fixture()
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copied")
