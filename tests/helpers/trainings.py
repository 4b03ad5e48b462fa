"""Trainings of a few steps through OML's pipelines, with a plain config as a user of OML writes it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import TINY_PLAIN
from helpers.scripts import _SERVER

TINY = {
    "arch": "vit_tiny_patch16_224",
    "timm_args": {"img_size": 16, "patch_size": 8, "depth": 1, "drop_path_rate": 0.1},
}
IRT = {"name": "irt", "args": {"weights": None, **TINY}}
AUGMENT = {"name": "augs_irt", "args": {"im_size": 18, "crop_size": 16}}
RESIZE = {"name": "norm_resize_irt", "args": {"im_size": 16, "crop_size": 16}}


def extractor_config(dataset_root: Path, **changes: Any) -> dict[str, Any]:
    """IRT_R with a memory and a momentum copy: 4 epochs of 3 steps on the demo slice, validated each epoch."""
    return {
        "seed": 0,
        "dataset_root": str(dataset_root),
        "dataframe_name": "df.csv",
        "extractor": {"name": "extractor_with_momentum", "args": {"extractor": IRT, "momentum": 0.9}},
        "criterion": {"name": "irt", "args": {"memory_size": 40}},
        "optimizer": {"name": "adamw", "args": {"lr": 1e-3}},
        "scheduling": {
            "scheduler": {"name": "cosine_annealing", "args": {"T_max": 12}},
            "scheduler_interval": "step",
            "scheduler_frequency": 1,
        },
        "sampler": {"name": "balance", "args": {"n_labels": 4, "n_instances": 2}},
        "transforms_train": AUGMENT,
        "transforms_val": RESIZE,
        **{"bs_train": None, "bs_val": 64, "num_workers": 0, "accelerator": "cpu", "devices": 1},
        **{"max_epochs": 4, "valid_period": 1, "metric_for_checkpointing": "OVERALL/cmc/1"},
        "metric_args": {"cmc_top_k": [1], "map_top_k": [5], "precision_top_k": [], "pcf_variance": []},
        "show_dataset_warnings": False,
        "resume": None,
        **changes,
    }


def validation_config(dataset_root: Path, **changes: Any) -> dict[str, Any]:
    """For OML's validation pipeline: an untrained model on the demo slice."""
    return {
        **{"accelerator": "cpu", "devices": 1, "num_workers": 0, "bs_val": 32},
        **{"dataset_root": str(dataset_root), "dataframe_name": "df.csv"},
        "transforms_val": {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}},
        "extractor": {"name": "irt", "args": {"weights": None, **TINY_PLAIN}},
        "metric_args": {"cmc_top_k": [1, 5], "precision_top_k": [1], "map_top_k": [5]},
        **changes,
    }


def counted_in_steps(dataset_root: Path, **changes: Any) -> dict[str, Any]:
    """The same, counted as ``irt/train_*`` do: 10 steps, validated every 4, in the middle of epochs."""
    steps = {"max_steps": 10, "val_check_interval": 4, "log_every_n_steps": 1}
    periods = {"max_epochs": -1, "valid_period": None, "lightning_trainer_extra_args": steps}
    return extractor_config(dataset_root, **periods, **changes)


def reranker_config(dataset_root: Path, **changes: Any) -> dict[str, Any]:
    """STIR after an untrained first stage: 2 epochs of 3 steps, only the head in the first."""
    cfg = extractor_config(dataset_root)
    for key in ("criterion", "transforms_val", "bs_train", "bs_val"):
        del cfg[key]
    siamese = {"name": "stir", "args": {"extractor": IRT, "mlp_hidden_dims": [8]}}
    reranker = {"top_n": 2, "pairwise_model": siamese, "num_workers": 0, "batch_size": 64}
    return {
        **cfg,
        "extractor": IRT,
        "postprocessor": {"name": "stir_reranker", "args": reranker},
        "transforms_extraction": RESIZE,
        **{"hard_pairs_mining": True, "batch_size_inference": 64, "embeddings_cache_dir": None, "log_images": False},
        **{"freeze_n_epochs": 1, "max_epochs": 3},
        **changes,
    }


def train(cfg: dict[str, Any], folder: Path) -> Path:
    """Train in ``folder``; returns its ``last.ckpt``."""
    from oml.lightning.pipelines import train as extractor
    from oml.lightning.pipelines import train_postprocessor as reranker

    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, _silence():
        patch.chdir(folder)
        if "postprocessor" in cfg:
            reranker.postprocessor_training_pipeline(cfg)  # type: ignore[arg-type]
        else:
            extractor.extractor_training_pipeline(cfg)
    return folder / "checkpoints" / "last.ckpt"


def started(
    cfg: dict[str, Any], folder: Path, rank: int = 0, world: int = 1, kill_at: int | None = None
) -> BaseProcess:
    """The same in a process of its own; returns when it has imported what it needs and begins.

    Args:
        cfg, folder: As for ``train``.
        rank, world: Of several processes that the caller starts, as ``torchrun`` would.
        kill_at: Number of steps after which the process kills itself.
    """
    begun = folder / f"begun-{rank}"
    folder.mkdir(exist_ok=True)
    begun.unlink(missing_ok=True)
    process = _SERVER.Process(target=_train_alone, args=(cfg, folder, begun, rank, world, kill_at))
    process.start()
    while not begun.exists() and process.exitcode is None:
        time.sleep(0.01)
    return process


def cut_at(step: int, cut: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Call ``cut`` when this many steps are done, before the next one."""
    from pytorch_lightning import LightningModule

    step_of = LightningModule.optimizer_step

    def optimizer_step(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.trainer.global_step == step:
            cut()
        step_of(self, *args, **kwargs)

    patch.setattr(LightningModule, "optimizer_step", optimizer_step)


def content(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)


def assert_same_training(one: Path, other: Path) -> None:
    """Two checkpoints hold the same weights, optimizer, schedule, memory, best score and number of steps."""
    left, right = content(one), content(other)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "oml_vit_ext_position"):
        assert_same(left[key], right[key], key)
    assert (
        left["loops"]["fit_loop"]["epoch_progress"]["current"]
        == right["loops"]["fit_loop"]["epoch_progress"]["current"]
    )
    assert best_score(left) == pytest.approx(best_score(right), abs=1e-6)


def assert_same(left: Any, right: Any, name: str) -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys(), name
        for key in left:
            assert_same(left[key], right[key], f"{name}.{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), name
        for i, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same(one, other, f"{name}.{i}")
    elif isinstance(left, torch.Tensor):
        torch.testing.assert_close(left, right, atol=1e-6, rtol=0, msg=lambda text: f"{name}: {text}")
    else:
        assert left == (pytest.approx(right, abs=1e-6) if isinstance(right, float) else right), name


def best_score(checkpoint: dict[str, Any]) -> float:
    (state,) = checkpoint["callbacks"].values()
    return float(state["best_model_score"])


def _train_alone(cfg: dict[str, Any], folder: Path, begun: Path, rank: int, world: int, kill_at: int | None) -> None:
    import oml_vit_ext  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs in the background ignore it
    if world > 1:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
        os.environ.update({name: str(value) for name, value in ranks.items()})
        os.environ.update(TORCHELASTIC_RUN_ID="test", MASTER_ADDR="127.0.0.1", MASTER_PORT=cfg["port"])
    patch = pytest.MonkeyPatch()
    if kill_at is not None:
        cut_at(kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL), patch)
    begun.touch()
    with open(folder / f"printed-{rank}", "w") as file, contextlib.redirect_stderr(file):
        train(cfg, folder)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
