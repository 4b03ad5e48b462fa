"""What ``resume`` refuses before anything is built, and what becomes of the files of earlier runs."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from oml.lightning.pipelines import train as pipeline
from oml.lightning.pipelines.train import extractor_training_pipeline
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from helpers.trainings import IRT, content, extractor_config, started, train
from oml_vit_ext.oml_patches.checkpoint_files import read_checkpoint
from oml_vit_ext.oml_patches.resume import with_checkpoint

NOWHERE = Path("no/such/data")


def refused(resume: Any, **changes: Any) -> str:
    """What the pipeline says, long before it misses the data."""
    with pytest.raises((ValueError, RuntimeError, FileNotFoundError)) as error:
        extractor_training_pipeline(extractor_config(NOWHERE, resume=resume, **changes))
    message = str(error.value)
    assert "no/such/data" not in message and "\n" not in message
    return message


def test_a_missing_file_is_named(in_tmp_path: Path):
    message = refused("typo.ckpt")
    assert message.startswith("resume is 'typo.ckpt', expected 'last' or a checkpoint of a training")
    assert str(in_tmp_path / "typo.ckpt") in message


@pytest.mark.parametrize("value", [0, -1, 1.5, "often", True])
def test_save_iterations_is_checked(value: Any):
    assert refused(None, save_iterations=value).startswith(f"save_iterations is {value!r}, expected a whole number")


def test_without_a_last_checkpoint_the_training_starts_afresh_and_says_so(
    in_tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert with_checkpoint({"resume": "last"})["resume"] is None
    assert "starts afresh" in caplog.text and str(in_tmp_path / "checkpoints" / "last.ckpt") in caplog.text


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_torn_file_is_refused_and_the_other_one_named(copied: Path, kept: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(copied)
    last = copied / "checkpoints" / "last.ckpt"
    os.truncate(last, int(last.stat().st_size * kept))
    message = refused("last")
    assert message.startswith(f"Checkpoint {str(last)!r} is damaged") and message.endswith("beside it: best.ckpt.")


class Bite:
    def __reduce__(self) -> Any:
        return os.mkdir, ("bitten",)


def test_code_in_a_checkpoint_does_not_run(run: Path, in_tmp_path: Path):
    torch.save({**content(run / "checkpoints" / "last.ckpt"), "more": Bite()}, "evil.ckpt")
    assert "holds more than tensors and plain data (posix.mkdir)" in refused("evil.ckpt")
    with pytest.raises(Exception, match="mkdir"):
        pl.Trainer(logger=False, accelerator="cpu").strategy.checkpoint_io.load_checkpoint("evil.ckpt")
    assert not Path("bitten").exists()


def test_weights_alone_are_no_training(in_tmp_path: Path):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, "weights.ckpt")
    assert "holds no loops, optimizer_states" in refused("weights.ckpt")


def test_a_config_without_the_keys_is_trained_as_ever(in_tmp_path: Path):
    cfg = extractor_config(NOWHERE)
    assert type(pipeline.parse_ckpt_callback_from_config(cfg)) is not ModelCheckpoint
    del cfg["resume"]
    assert type(pipeline.parse_ckpt_callback_from_config(cfg)) is ModelCheckpoint


def test_a_trainer_of_ones_own_takes_its_checkpoints_again(in_tmp_path: Path):
    """Lightning puts the folder into the checkpoint, which ``torch.load`` refuses by default since 2.6."""

    got = []

    class Keeps(pl.Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"best": np.float64(0.5), "curve": np.arange(3), "args": argparse.Namespace(lr=0.1)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            got.append(state)

    def fit(epochs: int, checkpoint: str | None = None) -> pl.Trainer:
        keep = ModelCheckpoint(dirpath=in_tmp_path / "kept", save_last=True)
        silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[keep, Keeps()], **silent)
        trainer.fit(Line(), DataLoader(torch.ones(4, 1), batch_size=2), ckpt_path=checkpoint)  # type: ignore[arg-type]
        return trainer

    fit(1)
    assert fit(2, "kept/last.ckpt").global_step == 4
    (state,) = got
    assert (state["best"], state["curve"].tolist(), state["args"].lr) == (0.5, [0, 1, 2], 0.1)
    whole = torch.load("kept/last.ckpt", weights_only=False)
    torch.save({**whole, "more": Bite()}, "evil.ckpt")
    with pytest.raises(RuntimeError, match=r"'evil\.ckpt' holds more than tensors and plain data \(posix\.mkdir\)"):
        fit(2, "evil.ckpt")


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"config": OmegaConf.create({"lr": 0.1, "sizes": [1, 2]})})
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_addition_is_logged_once(caplog: pytest.LogCaptureFixture):
    import oml_vit_ext

    with caplog.at_level(logging.INFO, "oml_vit_ext"):
        oml_vit_ext.register()
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"optimizer": {"name": "sgd", "args": {"lr": 0.1}}},
            "it is of another optimizer than SGD: no dampening, momentum",
        ),
        ({"criterion": {"name": "triplet", "args": {"margin": 0.1}}}, r"Unexpected key\(s\) in state_dict"),
        ({"extractor": IRT}, r"Missing key\(s\) in state_dict: .* \.\.\."),
    ],
)
def test_a_checkpoint_of_another_training_is_told_in_short(
    run: Path, demo_slice: Path, tmp_path: Path, change: dict[str, Any], says: str
):
    last = run / "checkpoints" / "last.ckpt"
    cfg = extractor_config(demo_slice, max_epochs=2, resume=str(last), **change)
    with pytest.raises(RuntimeError, match=f"Checkpoint {re.escape(repr(str(last)))} does not fit .*{says}") as told:
        train(cfg, tmp_path / "other")
    assert len(str(told.value)) < 800 and "\n" not in str(told.value)


@pytest.mark.parametrize("value", [torch.zeros(3), torch.tensor(float("nan")), "text"])
def test_moments_that_no_optimizer_has_left_are_told(run: Path, demo_slice: Path, tmp_path: Path, value: Any):
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for state in content["optimizer_states"][0]["state"].values():
        moment = state["exp_avg"]
        state["exp_avg"] = torch.full_like(moment, value) if getattr(value, "ndim", 1) == 0 else value
    torch.save(content, tmp_path / "odd.ckpt")
    cfg = extractor_config(demo_slice, max_epochs=2, resume=str(tmp_path / "odd.ckpt"))
    with pytest.raises(
        RuntimeError, match=r"odd.ckpt' does not fit this training: exp_avg of its optimizer is .*finite"
    ):
        train(cfg, tmp_path / "other")


def test_numbers_of_numpy_can_be_resumed_from(copied: Path, demo_slice: Path):
    """Somebody's own schedule or callback may keep them; what was written must be read again."""
    last = copied / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["lr_schedulers"][0]["best"] = np.float64(0.5)
    torch.save(content, last)
    train(extractor_config(demo_slice, max_epochs=2, resume="last"), copied)
    assert read_checkpoint(last)["global_step"] == 2 * content["global_step"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_an_interrupted_training_does_not_end_as_if_all_were_well(
    demo_slice: Path, tmp_path: Path, number: signal.Signals, code: int
):
    """Lightning returns after Ctrl-C, and leaves with 0 after SIGTERM: scripts would go on with half a model."""
    folder = tmp_path / "run"
    last = folder / "checkpoints" / "last.ckpt"
    process = started(extractor_config(demo_slice, max_epochs=500, save_iterations=1), folder)
    while not last.exists():
        time.sleep(0.01)
    with pytest.raises(RuntimeError, match="Another training is writing its checkpoints to"):
        train(extractor_config(demo_slice, max_epochs=1), folder)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code
    assert read_checkpoint(last)["global_step"] > 0
