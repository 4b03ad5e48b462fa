"""The re-ranker in OML's pipelines: training from YAML, the checkpoint, validation, what is frozen and decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig
from oml.datasets.images import ImageBaseDataset, get_retrieval_images_datasets
from oml.inference import inference
from oml.lightning.modules.pairwise_postprocessing import PairwiseModule
from oml.lightning.pipelines.train_postprocessor import postprocessor_training_pipeline
from oml.lightning.pipelines.validate import extractor_validation_pipeline
from oml.registry.models import get_extractor_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from oml.retrieval.retrieval_results import RetrievalResults
from torch import Tensor

SMALL = ["extractor.args.timm_args.depth=2", "postprocessor.args.pairwise_model.args.mlp_hidden_dims=[16]"]
TRAINING = [
    "freeze_n_epochs=1",
    "max_epochs=2",
    "valid_period=1",
    "sampler.args.n_labels=4",
    "sampler.args.n_instances=2",
    "optimizer.name=adamw",
    "+optimizer.args.weight_decay=0.1",
    "scheduling.scheduler.args.gamma=5e-3",
]
TOP_N = 2


@dataclass
class Run:
    """What was seen of one training."""

    cfg: DictConfig
    checkpoint: Path
    backbones: list[dict[str, Tensor]] = field(default_factory=list)  # before training and after each epoch
    heads: list[Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # learning rate of each step
    metrics: list[dict[str, float]] = field(default_factory=list)  # of each validation
    decodes: list[Counter[str]] = field(default_factory=list)  # in each validation, by path


@pytest.fixture(scope="module")
def few_queries(demo_slice: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slice with one query per validation label; the other drawings are the gallery."""
    df = pd.read_csv(demo_slice / "df.csv")
    validation = df.split == "validation"
    first = validation & ~df.duplicated(["split", "label"])
    df["is_query"] = first.where(validation).astype("boolean")
    df["is_gallery"] = (~first).where(validation).astype("boolean")
    root = tmp_path_factory.mktemp("few_queries")
    (root / "images").symlink_to(demo_slice / "images")
    df.to_csv(root / "df.csv", index=False)
    return root


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random first stage, saved as Lightning saves one."""
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose("stir/train_reranker_demo", ["first_stage_checkpoint=null", *SMALL])
    torch.manual_seed(1)
    extractor = get_extractor_by_cfg(cfg.extractor)
    path = tmp_path_factory.mktemp("first_stage") / "first.ckpt"
    torch.save({"state_dict": {f"model.{k}": v for k, v in extractor.state_dict().items()}}, path)
    return path


@pytest.fixture(scope="module", params=[0, 1], ids=["stacked", "joined after block 1"])
def run(
    request: pytest.FixtureRequest, few_queries: Path, first_stage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    folder = tmp_path_factory.mktemp("training")
    overrides = [f"dataset_root={few_queries}", f"first_stage_checkpoint={first_stage}", f"join_layer={request.param}"]
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose("stir/train_reranker_demo", [*overrides, f"top_n={TOP_N}", *SMALL, *TRAINING])
    seen = Run(cfg, folder / "checkpoints" / "best.ckpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        watch(seen, patch)
        postprocessor_training_pipeline(cfg)
    return seen


def watch(seen: Run, patch: pytest.MonkeyPatch) -> None:
    """Note weights, learning rates, metrics and decodes where Lightning passes by."""
    decoded: Counter[str] = Counter()
    read = ImageBaseDataset._read_bytes

    def counted(path: str) -> bytes:
        decoded[str(path)] += 1
        return read(path)

    def note_weights(module: Any) -> None:
        state = module.model.extractor.state_dict()
        seen.backbones.append({key: value.clone() for key, value in state.items()})
        seen.heads.append(module.model.head[0].weight.detach().clone())

    def note_validation(module: Any) -> None:
        seen.decodes.append(Counter(decoded))
        seen.metrics.append(metrics_of(module.trainer))

    def note_rate(module: Any, *_: Any) -> None:
        seen.rates.append(module.optimizer.param_groups[0]["lr"])

    patch.setattr(ImageBaseDataset, "_read_bytes", staticmethod(counted))
    patch.setattr(PairwiseModule, "on_train_start", note_weights, raising=False)
    patch.setattr(PairwiseModule, "on_validation_start", lambda _: decoded.clear(), raising=False)
    patch.setattr(PairwiseModule, "on_validation_end", note_validation, raising=False)
    patch.setattr(PairwiseModule, "on_train_batch_start", note_rate, raising=False)
    patch.setattr(PairwiseModule, "on_train_epoch_end", note_weights, raising=False)


def metrics_of(trainer: Any) -> dict[str, float]:
    metric = next(c.metric for c in trainer.callbacks if hasattr(c, "metric"))
    overall = metric.metrics["OVERALL"]
    return {f"{name}/{k}": float(value) for name in ("cmc", "map") for k, value in overall[name].items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_the_pair_model_starts_from_the_first_stage(run: Run, first_stage: Path):
    state = torch.load(first_stage)["state_dict"]
    assert same(run.backbones[0], {key.removeprefix("model."): value for key, value in state.items()})


def test_the_backbone_waits_until_the_head_has_learned(run: Run):
    before, after_head, after_all = run.backbones
    assert same(before, after_head), "the frozen backbone moved"
    assert not same(after_head, after_all), "the backbone never thawed"
    assert not torch.equal(run.heads[0], run.heads[1])


def test_the_learning_rate_drops_with_the_thaw(run: Run):
    n_steps = len(run.rates) // 2
    assert n_steps > 1 and run.rates == pytest.approx([2e-3] * n_steps + [1e-5] * n_steps)


def test_validation_decodes_the_images_of_its_pairs_once(run: Run):
    wanted = images_of_pairs(run.cfg)
    for decoded in run.decodes:
        assert decoded == Counter(wanted)


def images_of_pairs(cfg: DictConfig) -> set[str]:
    transform = get_transforms_by_cfg(cfg.transforms_extraction)
    _, dataset = get_retrieval_images_datasets(Path(cfg.dataset_root), transform, transform)
    embeddings = inference(get_extractor_by_cfg(cfg.extractor), dataset, batch_size=16)
    rr = RetrievalResults.from_embeddings(embeddings, dataset, n_items=TOP_N)
    gallery = dataset.get_gallery_ids()
    ids = {int(i) for i in dataset.get_query_ids()} | {int(gallery[i]) for ids in rr.retrieved_ids for i in ids}
    assert len(ids) < len(dataset), "the test tells nothing if all images are wanted"
    return {str(Path(cfg.dataset_root) / dataset.df.path[i]) for i in ids}


def test_the_checkpoint_gives_the_same_metrics_in_the_validation_pipeline(run: Run, in_tmp_path: Path):
    with initialize_config_module("oml_vit_ext.configs", version_base=None):
        cfg = compose(
            "stir/validate_reranker_demo",
            [
                *(f"{key}={run.cfg[key]}" for key in ("dataset_root", "first_stage_checkpoint", "join_layer", "top_n")),
                f"checkpoint={run.checkpoint}",
                *SMALL,
            ],
        )
    trainer, logs = extractor_validation_pipeline(cfg)
    best = max(run.metrics, key=lambda m: m["cmc/1"])  # the earliest of equals, as Lightning keeps it
    assert metrics_of(trainer) == pytest.approx(best, abs=1e-6)
    assert logs[0]["OVERALL/cmc/1"] == pytest.approx(best["cmc/1"], abs=1e-6)
