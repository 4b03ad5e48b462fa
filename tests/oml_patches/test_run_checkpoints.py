"""A run keeps its best and its last checkpoint, and what becomes of the files of earlier runs."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from helpers.trainings import assert_same_training, best_score, content, extractor_config, train
from oml_vit_ext.oml_patches.run_checkpoints import RunCheckpoints


def test_a_file_of_another_folder_goes_on_here(run: Path, demo_slice: Path, tmp_path: Path):
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    cfg = extractor_config(demo_slice, max_epochs=2)
    resumed = train({**cfg, "resume": str(run / "checkpoints" / "last.ckpt")}, tmp_path / "here")
    whole = train(cfg, tmp_path / "whole")
    torch.testing.assert_close(content(resumed)["state_dict"], content(whole)["state_dict"], atol=1e-6, rtol=0)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_run_folder_may_move(run: Path, copied: Path, demo_slice: Path):
    resumed = train(extractor_config(demo_slice, max_epochs=2, resume="last"), copied)
    assert sorted(p.name for p in resumed.parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert best_score(content(resumed)) >= best_score(content(run / "checkpoints" / "last.ckpt"))


def test_a_new_run_keeps_what_another_one_left(
    run: Path, copied: Path, demo_slice: Path, caplog: pytest.LogCaptureFixture
):
    train(extractor_config(demo_slice, max_epochs=1, seed=1), copied)
    files = sorted(p.name for p in (copied / "checkpoints").iterdir())
    assert files == ["best-v1.ckpt", "best.ckpt", "last-v1.ckpt", "last.ckpt"]
    assert_same_training(copied / "checkpoints" / "last-v1.ckpt", run / "checkpoints" / "last.ckpt")
    assert "was renamed to last-v1.ckpt" in caplog.text


def test_what_a_killed_run_left_half_written_goes(copied: Path, demo_slice: Path):
    (copied / "checkpoints" / ".last.123-456.partial.ckpt").write_bytes(b"half")
    last = train(extractor_config(demo_slice, max_epochs=2, resume="last"), copied)
    assert sorted(p.name for p in last.parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_finished_training_is_not_trained_on(copied: Path, demo_slice: Path):
    last = copied / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    train(extractor_config(demo_slice, max_epochs=1, resume="last"), copied)
    assert last.read_bytes() == before


def test_checkpoints_that_oml_wrote_alone_are_taken(demo_slice: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    cfg = extractor_config(demo_slice, max_epochs=1)
    del cfg["resume"]
    train(cfg, tmp_path / "before")
    best = tmp_path / "before" / "checkpoints" / "best.ckpt"
    last = train({**cfg, "max_epochs": 2, "resume": str(best)}, tmp_path / "after")
    assert content(last)["global_step"] == 6
    assert "was written without `resume` in the config" in caplog.text


def test_each_earlier_run_gets_a_number_of_its_own(copied: Path, demo_slice: Path):
    folder = copied / "checkpoints"
    first = (folder / "last.ckpt").read_bytes()
    second = train(extractor_config(demo_slice, max_epochs=1, seed=1), copied).read_bytes()
    train(extractor_config(demo_slice, max_epochs=1, seed=2), copied)
    assert [(folder / f"last-v{n}.ckpt").read_bytes() for n in (1, 2)] == [first, second]


def test_last_is_written_each_so_many_steps_and_at_the_end_of_epochs(
    demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps, save = [], pl.Trainer.save_checkpoint

    def noted(self: pl.Trainer, filepath: Any, *args: Any, **kwargs: Any) -> None:
        save(self, filepath, *args, **kwargs)
        if Path(filepath).name == "last.ckpt":
            steps.append(content(filepath)["global_step"])

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", noted)
    train(extractor_config(demo_slice, max_epochs=3, save_iterations=2), tmp_path)
    assert steps == [2, 3, 4, 6, 8, 9]  # epochs of 3 steps


@pytest.fixture()
def omls(tmp_path: Path) -> ModelCheckpoint:
    """The callback as OML makes it."""
    (tmp_path / "checkpoints").mkdir()
    return ModelCheckpoint(tmp_path / "checkpoints", "best", "OVERALL/cmc/1", mode="max", save_top_k=1)


def test_oml_finds_its_own_state_in_the_checkpoints(omls: ModelCheckpoint):
    assert RunCheckpoints(omls, save_iterations=5).state_key == omls.state_key


def test_the_best_one_so_far_counts_where_the_run_goes_on_in_its_folder_alone(omls: ModelCheckpoint, tmp_path: Path):
    best = "/elsewhere/then/best.ckpt"
    state = {
        **{"dirpath": "/elsewhere/then", "best_model_path": best, "best_model_score": 0.7, "last_model_path": ""},
        **{"best_k_models": {best: 0.7}, "kth_best_model_path": best, "kth_value": 0.7},
    }
    here = RunCheckpoints(omls, tmp_path / "checkpoints" / "last.ckpt")
    here.load_state_dict(state)
    moved = str((tmp_path / "checkpoints" / "best.ckpt").resolve())
    assert (here.best_model_path, here.kth_best_model_path, here.best_k_models) == (moved, moved, {moved: 0.7})
    assert here.best_model_score == 0.7

    there = RunCheckpoints(omls, tmp_path / "other" / "last.ckpt")
    there.load_state_dict(state)
    assert there.best_model_path == "" and there.best_model_score is None and there.best_k_models == {}


def test_nothing_is_removed_but_what_the_run_has_written(omls: ModelCheckpoint, tmp_path: Path):
    """Lightning removes, with all that is in it, what a checkpoint calls its best one."""
    folder, trainer = tmp_path / "checkpoints", SimpleNamespace(ckpt_path=None, strategy=Removing())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    (folder / "mine.ckpt").touch()
    here = RunCheckpoints(omls, folder / "last.ckpt")
    for victim in (tmp_path / "photos", folder / ".." / "photos", folder / "mine.ckpt", folder):
        here._remove_checkpoint(trainer, str(victim))
    assert trainer.strategy.removed == []
    best = folder.resolve() / "best.ckpt"
    best.touch()
    here._remove_checkpoint(trainer, str(best))
    assert trainer.strategy.removed == [str(best)]


class Removing:
    def __init__(self) -> None:
        self.removed: list[str] = []

    def remove_checkpoint(self, path: str) -> None:
        self.removed.append(path)


@pytest.mark.parametrize(
    "change",
    [
        {"dirpath": None},
        {"best_k_models": ["best.ckpt"]},
        {"best_k_models": {"/then/best.ckpt": "good"}},
        {"kth_best_model_path": "/then/other.ckpt"},
        {"best_model_path": 3},
    ],
)
def test_a_state_that_lightning_cannot_go_on_with_is_told(omls: ModelCheckpoint, tmp_path: Path, change: Any):
    best = "/then/best.ckpt"
    state = {
        **{"dirpath": "/then", "best_model_path": best, "best_model_score": 0.7, "last_model_path": ""},
        **{"best_k_models": {best: 0.7}, "kth_best_model_path": best, "kth_value": 0.7},
    }
    last = tmp_path / "checkpoints" / "last.ckpt"
    RunCheckpoints(omls, last).load_state_dict(state)
    with pytest.raises(ValueError, match=f"{re.escape(str(last))}.* expected their paths and scores"):
        RunCheckpoints(omls, last).load_state_dict({**state, **change})
