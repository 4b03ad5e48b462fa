"""The configs of DToP: each composes and builds, and each variant switches one contribution on."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.schedulers import get_scheduler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import ROOT
from helpers.configs import composed

CONFIGS = ROOT / "configs" / "dtop"
DATASETS = ("demo", "gldv2_clean", "nc_clean", "sfm120k")
VARIANTS = ("plain", "hybrid", "local", "multi_layer", "full")
WHITENED = "full_whitened"
# The same models, small: what is tested is how the configs fit together.
SMALL = (
    "pretrained=null",
    "embed_dim=16",
    "pca_dim=8",
    "hybrid.arch=vit_tiny_r_s16_p8_224",
    "plain.arch=vit_tiny_patch16_224",
    "multi_layer=2",
    "timm_args={img_size:64,patch_size:2,depth:2}",
)


def _small(name: str, variant: str, *overrides: str) -> DictConfig:
    cfg = composed(f"dtop/{name}", f"dtop/variant={variant}", *SMALL, *overrides)
    OmegaConf.set_struct(cfg, False)
    return OmegaConf.merge(cfg, {"checkpoint": None, "pca": None})


def test_every_data_set_and_variant_is_tested():
    assert {p.stem for p in (CONFIGS / "variant").glob("*.yaml")} == {*VARIANTS, WHITENED}
    runs = {p.stem for p in CONFIGS.glob("*.yaml")} - {"run", "train", "validate", "predict"}
    assert runs >= {f"{kind}_{data}" for kind in ("train", "validate", "predict") for data in DATASETS}


# Each data set, and each variant.
TRAINED = [(data, "full") for data in DATASETS] + [("sfm120k", variant) for variant in VARIANTS[:-1]]
USED = [(data, variant) for data in DATASETS for variant in ("full", WHITENED)]


@pytest.mark.parametrize(("data", "variant"), TRAINED)
def test_training_composes_and_builds(data: str, variant: str, demo_slice: Path, tmp_path: Path):
    cfg = _small(
        f"train_{data}",
        variant,
        *("sampler.args.batch_size=8", f"sampler.args.dataset_root={demo_slice}", "sampler.args.dataframe_name=df.csv"),
        f"+sampler.args.sizes_cache={tmp_path / 'sizes.csv'}" if data != "demo" else "bs_val=2",
    )
    extractor = get_extractor_by_cfg(cfg.extractor)
    criterion = get_criterion_by_cfg(cfg.criterion, label2category=None)
    if data == "demo":
        assert criterion.loss.temperature == cfg.criterion.args.loss.args.temperature
    else:
        assert criterion.weight.shape == (cfg.num_classes, extractor.feat_dim)
    optimizer = get_optimizer_by_cfg(cfg.optimizer, params=extractor.parameters())
    scheduler = get_scheduler_by_cfg(cfg.scheduling.scheduler, optimizer=optimizer)
    planned = scheduler.total_steps if data == "demo" else scheduler.T_max
    assert planned == cfg.iterations == cfg.lightning_trainer_extra_args.max_steps
    assert cfg.iterations % cfg.valid_iterations == 0, "the last iterations would not be validated"
    for key in ("transforms_train", "transforms_val"):
        get_transforms_by_cfg(cfg[key])
    labels = pd.read_csv(demo_slice / "df.csv").query("split == 'train'").label.to_numpy()
    batch = next(iter(get_sampler_by_cfg(cfg.sampler, labels=labels, label2category=None)))
    assert len(batch) == 8
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize("kind", ["validate", "predict"])
@pytest.mark.parametrize(("data", "variant"), USED)
def test_validation_and_prediction_compose_and_build(data: str, kind: str, variant: str):
    cfg = _small(f"{kind}_{data}", variant)
    extractor = get_extractor_by_cfg(cfg.extractor)
    assert extractor.feat_dim == (8 if variant == WHITENED else 16)
    get_transforms_by_cfg(cfg.transforms_val if kind == "validate" else cfg.transforms_predict)
    assert not OmegaConf.missing_keys(cfg)
    if data != "demo":
        assert (cfg.bs_val if kind == "validate" else cfg.bs) == 1, "images of other shapes would not collate"


def test_each_variant_switches_one_contribution_on():
    rows = [composed("dtop/train_sfm120k", f"dtop/variant={variant}").extractor.args for variant in VARIANTS]
    keys = ("arch", "weights", "branches", "n_layers", "enhanced_locality", "embed_dim", "timm_args")
    switched = [{k for k in keys if a[k] != b[k]} for a, b in pairwise(rows)]
    assert switched == [{"arch", "weights"}, {"branches"}, {"n_layers"}, {"enhanced_locality"}]
    first, last = rows[0], rows[-1]
    assert (first.arch, first.branches, first.n_layers, first.enhanced_locality) == (
        "vit_base_patch16_384",
        "global",
        1,
        False,
    )
    assert (last.arch, last.branches, last.n_layers, last.enhanced_locality) == (
        "vit_base_r50_s16_384",
        "both",
        6,
        True,
    )
    assert last.embed_dim == 1536


@pytest.mark.parametrize(("data", "num_classes"), [("gldv2_clean", 81_313), ("sfm120k", 713), ("nc_clean", 581)])
def test_the_recipe(data: str, num_classes: int):
    cfg = composed(f"dtop/train_{data}")
    assert (cfg.criterion.name, cfg.criterion.args.num_classes, cfg.criterion.args.m) == ("arcface", num_classes, 0.3)
    assert cfg.criterion.args.in_features == 1536
    assert cfg.optimizer.name == "sgd"
    assert cfg.optimizer.args == {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-5}
    assert (cfg.sampler.name, cfg.sampler.args.batch_size) == ("group_size", 64)
    assert cfg.sampler.args.sizes == cfg.transforms_train.args.sizes
    assert cfg.sampler.args.sizes == [[512, 352], [512, 384], [448, 448], [384, 512], [352, 512]]
    assert composed(f"dtop/validate_{data}", "checkpoint=x").extractor.args.scales == [0.75, 1.0, 1.25]
    assert "scales" not in cfg.extractor.args, "validation within training is at one scale"


def test_the_demo_counts_its_labels_and_takes_its_images():
    df = pd.read_csv(ROOT / "examples/demo_data/df.csv")
    cfg = composed("dtop/train_demo")
    assert cfg.num_classes == df[df.split == "train"].label.max() + 1
    extractor = get_extractor_by_cfg(cfg.extractor).eval()
    assert extractor(torch.zeros(1, 3, 48, 48)).shape == (1, cfg.embed_dim)


def test_a_forgotten_checkpoint_is_named():
    with pytest.raises(Exception, match="checkpoint"):
        _ = composed("dtop/validate_sfm120k").extractor.args.weights
