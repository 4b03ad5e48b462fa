"""Folders of runs as Hydra and OML's pipelines leave them, of a few steps with tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from helpers import trainings


def trained_run(cfg: dict[str, Any], folder: Path, started_in: Path) -> Path:
    """Train in ``folder``, and write down the config as Hydra does when it was started in ``started_in``."""
    trainings.train(cfg, folder)
    written_down(cfg, folder, started_in)
    return folder


def written_down(cfg: dict[str, Any], folder: Path, started_in: Path) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/config.yaml").write_text(yaml.safe_dump(cfg))
    (folder / ".hydra/hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"cwd": str(started_in)}}}))
