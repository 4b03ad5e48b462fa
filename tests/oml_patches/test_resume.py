"""What ``resume`` refuses before anything is built, and what becomes of the files of earlier runs."""

from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from oml.lightning.pipelines import train as pipeline
from oml.lightning.pipelines.train import extractor_training_pipeline
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from helpers.trainings import assert_same_training, best_score, content, extractor_config, train
from oml_vit_ext.oml_patches.checkpoint_files import CheckpointFiles
from oml_vit_ext.oml_patches.resume import with_checkpoint

NOWHERE = Path("no/such/data")


@pytest.fixture(scope="module")
def run(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch."""
    return train(extractor_config(demo_slice, max_epochs=1), tmp_path_factory.mktemp("run")).parents[1]


@pytest.fixture()
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copied")


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


def test_one_wrong_byte_is_found(copied: Path):
    last = copied / "checkpoints" / "last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 255  # within a weight
    last.write_bytes(data)
    assert "the check sum of its part" in refused(str(last))


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


@contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file can grow beyond this size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path):
    file = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFiles().save_checkpoint({"step": 1}, file)
    with full_disk(100_000), pytest.raises(OSError, match="could not be written, the one that was there before is"):
        CheckpointFiles().save_checkpoint({"step": 2, "weights": torch.zeros(1_000_000)}, file)
    assert content(file) == {"step": 1} and os.listdir(file.parent) == ["last.ckpt"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(OSError, match=r"Checkpoint '.*last.ckpt' could not be written, nothing was there before: "):
        CheckpointFiles().save_checkpoint({"step": 1}, tmp_path / "checkpoints" / "last.ckpt")


def test_a_trainer_of_ones_own_takes_its_checkpoints_again(in_tmp_path: Path):
    """Lightning puts the folder into the checkpoint, which ``torch.load`` refuses by default since 2.6."""

    def fit(epochs: int, checkpoint: str | None = None) -> pl.Trainer:
        keep = ModelCheckpoint(dirpath=in_tmp_path / "kept", save_last=True)
        silent = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
        trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[keep], **silent)
        trainer.fit(Line(), DataLoader(torch.ones(4, 1), batch_size=2), ckpt_path=checkpoint)  # type: ignore[arg-type]
        return trainer

    fit(1)
    assert fit(2, "kept/last.ckpt").global_step == 4


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
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
