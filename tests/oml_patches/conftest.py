"""A training that has been run, whose checkpoints the tests read, damage and go on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.trainings import extractor_config, train


@pytest.fixture(scope="session")
def run(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch."""
    return train(extractor_config(demo_slice, max_epochs=1), tmp_path_factory.mktemp("run")).parents[1]


@pytest.fixture()
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copied")
