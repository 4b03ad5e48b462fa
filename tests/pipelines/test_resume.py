"""A training that was interrupted and resumed ends like one that was not.

``OML_VIT_EXT_KILLS=20`` kills twenty times in a row instead of three.
"""

from __future__ import annotations

import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from helpers.scripts import run_script
from helpers.trainings import (
    assert_same_training,
    content,
    counted_in_steps,
    cut_at,
    extractor_config,
    reranker_config,
    started,
    train,
)
from oml_vit_ext.oml_patches.checkpoint_files import read_checkpoint

STEPS_OF_AN_EPOCH = 3
KILLS = int(os.environ.get("OML_VIT_EXT_KILLS", 3))

BY_METRICS = {
    "scheduler": {"name": "reduce_on_plateau", "args": {"mode": "max", "patience": 0, "factor": 0.5}},
    **{"scheduler_interval": "epoch", "scheduler_frequency": 1, "monitor_metric": "OVERALL/cmc/1"},
}
BY_EPOCHS = {
    "scheduler": {"name": "multi_step", "args": {"milestones": [1, 3], "gamma": 0.1}},
    **{"scheduler_interval": "epoch", "scheduler_frequency": 1},
}

# Which training, what is different in its config, after which steps it is interrupted.
CASES = {
    "within epochs": (extractor_config, {"save_iterations": 1, "max_epochs": 3}, [2, 6]),
    "loader processes": (extractor_config, {"num_workers": 2, "save_iterations": 1, "max_epochs": 2}, [2, 5]),
    "shuffled images": (
        extractor_config,
        {"sampler": None, "bs_train": 16, "save_iterations": 2, "max_epochs": 3},
        [5],
    ),
    "a schedule by epochs": (extractor_config, {"scheduling": BY_EPOCHS, "valid_period": 2}, [5, 9]),
    "a schedule by metrics": (extractor_config, {"scheduling": BY_METRICS}, [5, 10]),
    "counted in steps": (counted_in_steps, {}, [4, 7]),
    "counted in steps, within epochs": (counted_in_steps, {"save_iterations": 1}, [4, 5]),
    "re-ranker": (reranker_config, {"save_iterations": 2}, [4, 5]),
}


class PowerCut(Exception): ...


def cut() -> None:
    raise PowerCut


def interrupted(cfg: dict[str, Any], folder: Path, steps: list[int]) -> tuple[Path, list[int]]:
    """The last checkpoint, and with which step each of the later parts began."""
    begins: list[int] = []
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(PowerCut):
            cut_at(step, cut, patch)
            note_begin(begins, patch)
            train(cfg, folder)
        cfg = {**cfg, "resume": "last"}
    with pytest.MonkeyPatch.context() as patch:
        note_begin(begins, patch)
        return train(cfg, folder), begins[1:]


def note_begin(begins: list[int], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pl.LightningModule, "on_train_start", lambda self: begins.append(self.trainer.global_step))


@pytest.mark.parametrize("case", CASES)
def test_it_ends_like_a_training_that_was_not_interrupted(case: str, demo_slice: Path, tmp_path: Path):
    config, changes, steps = CASES[case]
    cfg = config(demo_slice, **changes)
    resumed, begins = interrupted(cfg, tmp_path / "interrupted", steps)
    assert_same_training(resumed, train(cfg, tmp_path / "whole"))
    periods = STEPS_OF_AN_EPOCH, cfg.get("save_iterations") or STEPS_OF_AN_EPOCH
    assert begins == [max(step // period * period for period in periods) for step in steps]
    assert {file.name for file in resumed.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.parametrize("name", ["hard_tuples", "group_size", "group_size of pairs", "nearest_pairs"])
def test_samplers_that_follow_epochs_go_on_with_their_own_batches(name: str, demo_slice: Path, tmp_path: Path):
    arguments: dict[str, Any] = {
        "hard_tuples": {"n_tuples": 2, "n_negatives": 2, "n_pairs": 6, "n_candidates": 20},
        "group_size": {"batch_size": 16, "n_instances": None, "dataset_root": str(demo_slice), "sizes": [[16, 16]]},
        "nearest_pairs": {"n_anchors": 4},
    }
    config = reranker_config if "pairs" in name else extractor_config
    name = name.split()[0]
    sampler = {"name": name, "args": {**arguments[name], "seed": 1}}
    cfg = config(demo_slice, sampler=sampler, max_epochs=3)
    resumed, begins = interrupted(cfg, tmp_path / "interrupted", [4])
    assert 0 < begins[0] <= 4
    assert_same_training(resumed, train(cfg, tmp_path / "whole"))


def test_no_kill_leaves_a_torn_checkpoint_or_none(demo_slice: Path, tmp_path: Path):
    cfg = extractor_config(demo_slice, save_iterations=1, max_epochs=6)
    begin = time.perf_counter()
    whole = train(cfg, tmp_path / "whole")
    duration = time.perf_counter() - begin
    folder, moments = tmp_path / "killed", random.Random(os.environ.get("OML_VIT_EXT_SEED", "0"))
    last, step, n_kills = folder / "checkpoints" / "last.ckpt", 0, 0
    for _ in range(KILLS):
        process = started({**cfg, "resume": "last"}, folder)
        process.join(moments.uniform(0, duration / 2))
        process.kill()
        process.join()
        n_kills += process.exitcode == -9
        found = read_checkpoint(last)["global_step"] if last.exists() else 0
        assert found >= step, "a checkpoint was lost"
        step = found
    assert n_kills > 0
    process = started({**cfg, "resume": "last"}, folder)
    process.join()
    assert process.exitcode == 0, (folder / "printed-0").read_text()[-2000:]
    assert_same_training(last, whole)
    assert {file.name for file in last.parent.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_two_processes_go_on_together(demo_slice: Path, tmp_path: Path):
    cfg = extractor_config(demo_slice, devices=2, save_iterations=1, max_epochs=2)

    def run(folder: Path, kill_at: int | None = None, **changes: Any) -> list[int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        both = [started({**cfg, **changes, "port": port}, folder, rank, 2, kill_at) for rank in range(2)]
        for process in both:
            process.join(120)
        return [process.exitcode for process in both]

    assert run(tmp_path / "whole") == [0, 0]
    assert run(tmp_path / "killed", kill_at=3) == [-9, -9]
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    killed = content(last)
    assert killed["global_step"] in (2, 3) and len(killed["oml_vit_ext_position"]["now"]) == 2
    assert run(tmp_path / "killed", resume="last") == [0, 0]
    assert_same_training(last, tmp_path / "whole" / "checkpoints" / "last.ckpt")


def test_the_script_names_a_missing_file_as_seen_from_where_it_was_started(demo_slice: Path, tmp_path: Path):
    done = run_script(
        "train_extractor", tmp_path, f"dataset_root={demo_slice}", "resume=typo.ckpt", "hydra.run.dir=run"
    )
    assert done.returncode != 0 and f"there is no file {tmp_path / 'typo.ckpt'}" in done.stderr
