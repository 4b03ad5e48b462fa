"""Composing configs, and running something in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

from helpers.command_line import QUIET
from oml_vit_ext.commands.hydra_runs import composed, names, run


def test_a_run_has_its_folder_and_the_arguments_that_were_typed(in_tmp_path: Path):
    typed = list(sys.argv)

    def task(cfg: DictConfig) -> tuple[str, int, list[str]]:
        return os.getcwd(), cfg.iterations, sys.argv

    [(folder, iterations, arguments)] = run("irt/train_photos", ["iterations=5", "hydra.run.dir=a", *QUIET], task)
    assert folder == str(in_tmp_path / "a") and iterations == 5
    assert arguments == typed, "Lightning starts its processes with them"
    assert Path.cwd() == in_tmp_path and "iterations: 5" in Path("a/.hydra/config.yaml").read_text()


def test_several_values_are_several_runs(in_tmp_path: Path):
    found = run("irt/train_photos", ["seed=1,2", "hydra.sweep.dir=m", *QUIET], lambda cfg: cfg.seed, multirun=True)
    assert found == [1, 2] and sorted(p.name for p in Path("m").iterdir() if p.is_dir()) == ["0", "1"]


def test_an_error_of_the_task_comes_out_and_nothing_of_hydra_with_it(
    in_tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    seeds = []

    def task(cfg: DictConfig) -> None:
        seeds.append(cfg.seed)
        raise ValueError("no photo")

    with pytest.raises(ValueError, match="no photo"):
        run("irt/train_photos", ["seed=1,2", "hydra.sweep.dir=m", *QUIET], task, multirun=True)
    assert seeds == [1], "the others do not start"
    assert "Error executing job" not in capfd.readouterr().err


def test_each_named_config_is_there():
    assert {"irt/train_photos", "dtop/train_photos", "stir/train_reranker_photos"} <= set(names())
    assert composed("irt/train_photos.yaml", ["iterations=3"]).iterations == 3
