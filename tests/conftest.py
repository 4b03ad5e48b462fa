"""Shared by all tests: a part of the bundled pictures, a folder to run in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from helpers import DEMO_DATA
from helpers.runs import trained_run
from helpers.trainings import counted_in_steps, reranker_config


@pytest.fixture(scope="session")
def demo_slice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set folder with a few emoji of the demo data: 12 to train, 8 to validate, pictures linked."""
    root = tmp_path_factory.mktemp("demo_slice")
    df = pd.read_csv(DEMO_DATA / "df.csv")
    keep = [
        label
        for split, n in (("train", 12), ("validation", 8))
        for label in df[df.split == split].label.drop_duplicates().head(n)
    ]
    df[df.label.isin(keep)].to_csv(root / "df.csv", index=False)
    (root / "images").symlink_to(DEMO_DATA / "images")
    return root


@pytest.fixture(scope="session", autouse=True)
def _a_home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The key that marks indexes as made by this user is not put among the user's own settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture()
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a temporary one: the pipelines of OML write where they stand."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def data_of_runs(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data set again, which no test changes after the runs have been trained on it."""
    root = tmp_path_factory.mktemp("data_of_runs")
    df = pd.read_csv(DEMO_DATA / "df.csv")
    df[df.label.isin(pd.read_csv(demo_slice / "df.csv").label)].to_csv(root / "df.csv", index=False)
    (root / "images").symlink_to(DEMO_DATA / "images")
    return root


@pytest.fixture(scope="session")
def extractor_run(data_of_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of 10 steps: an extractor with a momentum copy."""
    folder = tmp_path_factory.mktemp("runs") / "extractor"
    return trained_run(counted_in_steps(data_of_runs), folder, data_of_runs.parent)


@pytest.fixture(scope="session")
def reranker_run(data_of_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of a re-ranker, after an untrained first stage."""
    folder = tmp_path_factory.mktemp("runs") / "reranker"
    return trained_run(reranker_config(data_of_runs, max_epochs=2), folder, data_of_runs.parent)
