"""A training that was interrupted and resumed ends like one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from helpers.trainings import assert_same_training, counted_in_steps, extractor_config, reranker_config, train

PLATEAU = {
    "scheduler": {"name": "reduce_on_plateau", "args": {"mode": "max", "patience": 0, "factor": 0.5}},
    **{"scheduler_interval": "epoch", "scheduler_frequency": 1, "monitor_metric": "OVERALL/cmc/1"},
}
BY_EPOCH = {
    "scheduler": {"name": "multi_step", "args": {"milestones": [1, 3], "gamma": 0.1}},
    **{"scheduler_interval": "epoch", "scheduler_frequency": 1},
}


class PowerCut(Exception): ...


def cut_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Have Lightning stop without further ado when this many steps are done."""
    step_of = pl.LightningModule.optimizer_step

    def optimizer_step(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.trainer.global_step == step:
            raise PowerCut
        step_of(self, *args, **kwargs)

    patch.setattr(pl.LightningModule, "optimizer_step", optimizer_step)


def interrupted(cfg: dict[str, Any], folder: Path, *steps: int) -> Path:
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
            cut_at(step, patch)
            train(cfg, folder)
        cfg = {**cfg, "resume": "last"}
    return train(cfg, folder)


CASES = {
    "epochs": (extractor_config, {}, [4, 8]),
    "at the end of an epoch": (extractor_config, {"valid_period": 2}, [6]),
    "within epochs": (extractor_config, {"save_iterations": 1}, [2, 5, 7]),
    "loader processes": (extractor_config, {"num_workers": 2, "save_iterations": 1, "max_epochs": 2}, [2, 5]),
    "shuffled images": (
        extractor_config,
        {"sampler": None, "bs_train": 16, "save_iterations": 2, "max_epochs": 2},
        [3],
    ),
    "a schedule by epochs": (extractor_config, {"scheduling": BY_EPOCH}, [5, 10]),
    "a schedule by metrics": (extractor_config, {"scheduling": PLATEAU}, [5, 10]),
    "steps": (counted_in_steps, {}, [4, 7]),
    "steps, within epochs": (counted_in_steps, {"save_iterations": 1}, [2, 4, 5, 8]),
    "re-ranker": (reranker_config, {}, [4, 7]),
    "re-ranker, within epochs": (reranker_config, {"save_iterations": 1}, [2, 5]),
}


@pytest.mark.parametrize("case", CASES)
def test_it_ends_like_a_training_that_was_not_interrupted(case: str, demo_slice: Path, tmp_path: Path):
    config, changes, steps = CASES[case]
    cfg = config(demo_slice, **changes)
    assert_same_training(interrupted(cfg, tmp_path / "interrupted", *steps), train(cfg, tmp_path / "whole"))
    assert {p.name for p in (tmp_path / "interrupted" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
