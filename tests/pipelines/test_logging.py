"""What a training writes to its logger: terms of the loss, memory, mining, metrics, pictures of what was found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from oml.interfaces.loggers import IFigureLogger
from oml.registry.loggers import LOGGERS_REGISTRY

from helpers import ROOT
from helpers.trainings import extractor_config, train
from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, PMLLoss

PAGE = (ROOT / "docs/howto/logging.md").read_text()
LOGGED = {
    *("irt_loss_step", "irt_loss_epoch", "contrastive", "entropy", "active_negatives", "memory_fill"),
    *("mean_nn_distance", "mined_similarity", "OVERALL/cmc/1", "OVERALL/map/5"),
}


def _config(demo_slice: Path, **changes: Any) -> dict[str, Any]:
    tuples = {"n_tuples": 2, "n_negatives": 2, "n_pairs": 4, "n_candidates": 30}
    return extractor_config(
        demo_slice,
        **{"max_epochs": 1, "log_images": True, "scheduling": None},
        sampler={"name": "hard_tuples", "args": tuples},
        lightning_trainer_extra_args={"log_every_n_steps": 1},
        **changes,
    )


def test_tensorboard_has_curves_and_pictures(demo_slice: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(_config(demo_slice), tmp_path / "run").parents[1]
    (events,) = (EventAccumulator(str(file)) for file in folder.rglob("events.out.tfevents.*"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= LOGGED
    assert [0 <= e.value <= 1 for e in events.Scalars("memory_fill")] == [True, True]
    pictures = events.Tags()["images"]
    assert "image_logs/top 5 worst by OVERALL_cmc_1" in pictures
    picture = events.Images(pictures[0])[0]
    assert picture.height > 100 and picture.encoded_image_string[1:4] == b"PNG"


@pytest.mark.parametrize("name", LOGGERS_REGISTRY)
def test_each_logger_of_oml_takes_pictures(name: str):
    """So ``log_images`` works with each; whether its service takes them is tested by its makers."""
    assert issubclass(LOGGERS_REGISTRY[name], IFigureLogger)
    assert re.search(rf"^  name: .*\b{name}\b", PAGE, re.MULTILINE)


def test_any_logger_named_in_the_yaml_gets_the_same(demo_slice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A logger in the place of one whose service cannot be reached: Lightning's interface and OML's."""
    from oml.lightning.pipelines.logging import IPipelineLogger, prepare_config_to_logging

    figures: dict[str, float] = {}
    pictures: list[str] = []
    configs: list[dict[str, Any]] = []

    class Recorder(IPipelineLogger):
        name, version = "recorder", 0

        def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None: ...

        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            figures.update(metrics)

        def log_pipeline_info(self, cfg: Any) -> None:
            configs.append(prepare_config_to_logging(cfg))

        def log_figure(self, fig: Any, title: str, idx: int) -> None:
            pictures.append(title)

    monkeypatch.setitem(LOGGERS_REGISTRY, "recorder", Recorder)
    train(_config(demo_slice, logger={"name": "recorder", "args": {}}), tmp_path / "run")
    assert figures.keys() >= LOGGED and 0 < figures["memory_fill"] <= 1 and -1 <= figures["mined_similarity"] <= 1
    assert len(pictures) == 2 and all(title.startswith("image_logs/top 5 worst by OVERALL_") for title in pictures)
    assert configs[0]["criterion|args|memory_size"] == 40


@pytest.mark.parametrize(
    ("name", "args", "figures", "pictures"),
    [
        ("wandb", {"project": "p", "save_dir": "."}, "wandb/offline-*/*.wandb", "wandb/offline-*/files/media/**/*.png"),
        ("mlflow", {"tracking_uri": "file:./mlruns"}, "mlruns/*/*/metrics/*", "mlruns/*/*/artifacts/image_logs/*.png"),
        ("neptune", {"project": "w/p", "mode": "offline"}, ".neptune/offline/*", ".neptune/offline/**/*"),
        (
            "clearml",
            {"project_name": "p", "task_name": "t", "offline_mode": True},
            "clearml/offline/*/metrics.jsonl",
            "clearml/offline/*/data/**/*.png",
        ),
    ],
    ids=["wandb", "mlflow", "neptune", "clearml"],
)
def test_services_that_have_a_mode_without_their_server(
    name: str,
    args: dict[str, Any],
    figures: str,
    pictures: str,
    demo_slice: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip(name, reason=f"the service's package is not installed: pip install {name}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for key in ("WANDB_API_KEY", "NEPTUNE_API_TOKEN"):
        monkeypatch.setenv(key, "0" * 40)
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "run/clearml"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = train(_config(demo_slice, logger={"name": name, "args": args}), tmp_path / "run").parents[1]
    assert list(folder.glob(figures)) and list(folder.glob(pictures))


def test_the_page_lists_what_our_losses_log():
    listed = set(re.findall(r"`([\w/]+)`", "\n".join(re.findall(r"^\| (`[^|]+)\|", PAGE, re.MULTILINE))))
    losses: list[Any] = [IRTLoss(memory_size=4), ContrastiveXBMLoss(memory_size=4), DifferentialEntropyLoss()]
    losses.append(PMLLoss({"name": "TripletMarginLoss"}, miner={"name": "BatchHardMiner"}, memory_size=4))
    for loss in losses:
        loss(torch.randn(4, 8), torch.tensor([0, 0, 1, 1]))
        assert loss.last_logs.keys() <= listed, type(loss).__name__
    assert "mined_similarity" in listed
