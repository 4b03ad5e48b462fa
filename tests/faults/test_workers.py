"""A process that loads images is killed: the one that waits for it says so, and does not hang."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from oml.lightning.pipelines import predict, validate
from pytorch_lightning import LightningModule
from torch.utils.data import get_worker_info

from helpers.embedders import make_embedder
from helpers.photos import small_dataset, small_model, some_results
from helpers.trainings import IRT, RESIZE, content, cut_at, extractor_config, train
from oml_vit_ext.oml_patches import run_checkpoints
from oml_vit_ext.reranking import STIRReranker
from oml_vit_ext.transforms.boxed_images import BoxedImages

KILLED = r"DataLoader worker \(pid(\(s\))? [\d, ]+\) (is killed by signal: Killed|exited unexpectedly)"


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Lightning leaves its handlers behind when it fails."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def kill_workers() -> None:
    """All: some are of a loader that is done."""
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)


def kills_its_worker(read: Callable[..., Any], at: int = 3) -> Callable[..., Any]:
    """A reader of images that ends the first worker at its third image, as the system does where memory is short.

    The other one lives: its death would be told at any later moment, in what a test does next.
    """
    n_read = iter(range(1, 1_000))

    def read_or_die(*args: Any, **kwargs: Any) -> Any:
        worker = get_worker_info()
        if worker is not None and worker.id == 0 and next(n_read) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(*args, **kwargs)

    return read_or_die


def test_in_a_training_and_the_last_checkpoint_is_whole(
    demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cut_at(4, kill_workers, monkeypatch)
    with pytest.raises(RuntimeError, match=KILLED):
        train(extractor_config(demo_slice, num_workers=2, save_iterations=1, max_epochs=2, bs_val=4), tmp_path / "run")
    # It may have made a step more before the signal came.
    assert content(tmp_path / "run" / "checkpoints" / run_checkpoints.LAST)["global_step"] in (4, 5)


def test_in_a_validation_of_a_training(demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from oml.lightning.modules.extractor import ExtractorModule

    step = ExtractorModule.validation_step

    def validation_step(self: LightningModule, *args: Any, **kwargs: Any) -> Any:
        kill_workers()
        return step(self, *args, **kwargs)

    monkeypatch.setattr(ExtractorModule, "validation_step", validation_step)
    with pytest.raises(RuntimeError, match=KILLED):
        train(extractor_config(demo_slice, num_workers=2, max_epochs=1, bs_val=2), tmp_path / "run")


def test_in_validation_and_prediction(demo_slice: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import oml.datasets.images as images

    cfg = extractor_config(demo_slice, extractor=IRT, num_workers=2, bs_val=4, bs=4)
    cfg |= {"transforms_predict": RESIZE, "data_dir": str(demo_slice / "images"), "save_dir": str(in_tmp_path)}
    getter = images.ImageBaseDataset.__getitem__
    monkeypatch.setattr(images.ImageBaseDataset, "__getitem__", kills_its_worker(getter))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match=KILLED):
        validate.extractor_validation_pipeline(cfg)
    # Lightning leaves its own behind when it fails, and OML's prediction ends its processes by this signal.
    signal.signal(signal.SIGTERM, before)
    with pytest.raises(RuntimeError, match=KILLED):
        predict.extractor_prediction_pipeline(cfg)
    assert not list(in_tmp_path.glob("*.json"))


def test_while_an_index_is_made(demo_slice: Path, monkeypatch: pytest.MonkeyPatch):
    photos = sorted((demo_slice / "images").rglob("*.jpg"))[:12]
    embedder = make_embedder()
    embedder.num_workers, embedder.batch_size = 2, 2
    monkeypatch.setattr(BoxedImages, "__getitem__", kills_its_worker(BoxedImages.__getitem__))
    with pytest.raises(RuntimeError, match=KILLED):
        embedder.embed_all(photos)


def test_while_pairs_are_re_ranked_and_what_was_scored_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model, dataset = small_model(), small_dataset(tmp_path)
    results, file = some_results(dataset), tmp_path / "scores.npz"
    settings: dict[str, Any] = {"num_workers": 2, "batch_size": 2, "scores_file": file}
    expected = STIRReranker(3, model, **settings | {"scores_file": None}).process(results, dataset)
    with monkeypatch.context() as patch:
        patch.setattr(type(dataset), "__getitem__", kills_its_worker(type(dataset).__getitem__))
        with pytest.raises(RuntimeError, match=KILLED):
            STIRReranker(3, model, **settings).process(results, dataset)
    gc.collect()  # torch tells of a dead worker again as long as its loader is there
    again = STIRReranker(3, model, **settings).process(results, dataset)
    for ours, theirs in zip(again.distances, expected.distances, strict=True):
        torch.testing.assert_close(ours, theirs)
