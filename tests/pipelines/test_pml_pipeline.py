"""Losses of pytorch-metric-learning, written in a config, inside OML's training pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from oml.lightning.pipelines.train import extractor_training_pipeline
from torch import Tensor

from helpers import TINY_PLAIN
from oml_vit_ext.losses import PMLLoss

N_LABELS, DIM, STEPS, BATCH = 6, 192, 3, 8
CLASSES = {"num_classes": N_LABELS, "embedding_size": DIM}


def part(name: str, **args: Any) -> dict[str, Any]:
    return {"name": name, "args": args}


CRITERIA: dict[str, dict[str, Any]] = {
    "pairs": {"loss": part("ContrastiveLoss", neg_margin=0.8)},
    "weighted pairs": {"loss": part("MultiSimilarityLoss"), "miner": part("MultiSimilarityMiner", epsilon=0.2)},
    "triplets": {
        "loss": part("TripletMarginLoss", margin=0.1),
        "distance": part("CosineSimilarity"),
        "reducer": part("ThresholdReducer", low=0),
        "miner": part("TripletMarginMiner", margin=0.3, type_of_triplets="semihard"),
        "regularizer": part("LpRegularizer"),
    },
    "softmax over pairs": {"loss": part("NTXentLoss", temperature=0.2), "memory_size": 20},
    "supervised contrastive": {"loss": part("SupConLoss"), "miner": part("BatchEasyHardMiner"), "memory_size": 20},
    "circle": {"loss": part("CircleLoss", m=0.4, gamma=80)},
    "n-pairs": {"loss": part("NPairsLoss")},
    "average precision": {"loss": part("FastAPLoss", num_bins=10)},
    "angular margin": {"loss": part("ArcFaceLoss", **CLASSES), "regularizer": part("RegularFaceRegularizer")},
    "proxies": {"loss": part("ProxyAnchorLoss", **CLASSES)},
    "sub-centres": {
        "loss": part("SoftTripleLoss", centers_per_class=2, **CLASSES),
        "regularizer": part("SparseCentersRegularizer", num_classes=N_LABELS, centers_per_class=2),
    },
}
WITH_CENTRES = {"angular margin", "proxies", "sub-centres"}


@pytest.fixture(scope="module")
def few_pictures(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labels to train and two to validate, four pictures each, numbered from 0 as class centres want it."""
    df = pd.read_csv(demo_slice / "df.csv")
    parts = [df[(df.split == split)].groupby("label").head(4) for split in ("train", "validation")]
    df = pd.concat(one[one.label.isin(one.label.unique()[:n])] for one, n in zip(parts, (N_LABELS, 2), strict=True))
    df["label"] = pd.factorize(df.label)[0]
    root = tmp_path_factory.mktemp("few_pictures")
    (root / "images").symlink_to(demo_slice / "images")
    df.to_csv(root / "df.csv", index=False)
    return root


def config(root: Path, criterion: dict[str, Any]) -> Any:
    transform = {"name": "norm_resize_irt", "args": {"im_size": 32, "crop_size": 32}}
    return OmegaConf.create(
        {
            "seed": 0,
            "accelerator": "cpu",
            "devices": 1,
            "dataset_root": str(root),
            "dataframe_name": "df.csv",
            "transforms_train": transform,
            "transforms_val": transform,
            "num_workers": 0,
            "sampler": {"name": "balance", "args": {"n_labels": BATCH // 2, "n_instances": 2}},
            "bs_val": 8,
            "extractor": {"name": "irt", "args": {"weights": None, **TINY_PLAIN}},
            "criterion": {"name": "pml", "args": criterion},
            "optimizer": {"name": "adam", "args": {"lr": 1e-3}},
            "max_epochs": STEPS,  # of one step each
            "valid_period": STEPS,
            "metric_args": {"cmc_top_k": [1], "map_top_k": [], "precision_top_k": []},
            "metric_for_checkpointing": "OVERALL/cmc/1",
            "lightning_trainer_extra_args": {"log_every_n_steps": 1},
        }
    )


@pytest.mark.parametrize("kind", CRITERIA)
def test_the_oml_pipeline_trains_it(
    kind: str, few_pictures: Path, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    drawn: dict[str, Tensor] = {}
    forward = PMLLoss.forward

    def watched(self: PMLLoss, features: Tensor, labels: Tensor) -> Tensor:
        if not losses:
            drawn.update((name, value.detach().clone()) for name, value in self.named_parameters())
        loss = forward(self, features, labels)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(PMLLoss, "forward", watched)
    extractor_training_pipeline(config(few_pictures, CRITERIA[kind]))

    assert len(losses) == STEPS and torch.tensor(losses).isfinite().all()
    assert bool(drawn) == (kind in WITH_CENTRES)
    with torch.serialization.safe_globals([type(Path())]):  # the class of the checkpoint callback's folder
        saved = torch.load(in_tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    for name, value in drawn.items():
        assert not torch.equal(saved[f"criterion.{name}"], value), f"{name} did not move"
    n_kept = min(CRITERIA[kind].get("memory_size", 0), STEPS * BATCH)
    assert len(saved["criterion.memory.features"]) == n_kept


def test_proxies_and_layers_learn_at_their_own_rates(few_pictures: Path, in_tmp_path: Path) -> None:
    """Matryoshka around proxies, trained by adamw_groups: the groups are those of OML's extractor and criterion."""
    proxies = part("ProxyAnchorLoss", num_classes=N_LABELS, embedding_size="dim")
    cfg = config(few_pictures, {})
    cfg.criterion = part("matryoshka", criterion=part("pml", loss=proxies), dims=[16, DIM])
    cfg.optimizer = part("adamw_groups", lr=1e-3, criterion_lr_factor=50.0, layer_decay=0.5)
    one_cycle = part("one_cycle", max_lr=1e-3, total_steps=STEPS)
    cfg.scheduling = {"scheduler": one_cycle, "scheduler_interval": "step", "scheduler_frequency": 1}
    extractor_training_pipeline(cfg)
    with torch.serialization.safe_globals([type(Path())]):
        saved = torch.load(in_tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    groups = saved["optimizer_states"][0]["param_groups"]
    assert [g["lr_scale"] for g in groups] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 50.0]
    assert len({g["lr"] for g in groups}) == 1 and [len(g["params"]) for g in groups][-1] == 2
    widths = [value.shape for name, value in saved["state_dict"].items() if name.endswith("proxies")]
    assert widths == [(N_LABELS, 16), (N_LABELS, DIM)]
