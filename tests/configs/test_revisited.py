"""The configs for particular objects compose, build, and hold the papers' values."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import ROOT
from helpers.configs import composed

CONFIGS = ROOT / "configs" / "revisited"
PARTS = {"irt", "evaluate"}
RUNS = sorted(p.stem for p in CONFIGS.glob("*.yaml") if p.stem not in PARTS)


def small(name: str, *overrides: str) -> DictConfig:
    """With random weights of a small model in place of a download."""
    tiny = ["pretrained=null", "checkpoint=null"]
    if "dtop" in name:
        tiny += ["hybrid.arch=vit_tiny_r_s16_p8_224", "plain.arch=vit_tiny_patch16_224", "embed_dim=16"]
        tiny.remove("pretrained=null")
    else:
        tiny += ["arch=vit_tiny_patch16_224", "side=32", "+timm_args.depth=2"]
    return composed(f"revisited/{name}", *overrides, *tiny)


def test_no_config_is_forgotten():
    assert set(RUNS) == {"evaluate_irt", "evaluate_dtop", "train_sfm120k", "validate_sfm120k"}
    groups = {p.parent.name for p in CONFIGS.glob("*/*.yaml")}
    assert groups == {"dataset", "backbone", "variant"}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("evaluate_irt", ["irt/variant=irt_o"]),
        ("evaluate_irt", ["irt/variant=irt_l", "average_over_scales=[0.7071,1]"]),
        ("evaluate_irt", ["revisited/dataset=rparis6k"]),
        ("evaluate_irt", ["irt/variant=irt_r_pca128", "pca=null"]),
        ("evaluate_dtop", ["dtop/variant=full"]),
        ("evaluate_dtop", ["dtop/variant=full_whitened", "pca=null", "pca_dim=8", "revisited/dataset=rparis6k"]),
        ("evaluate_dtop", ["dtop/variant=plain"]),
        ("evaluate_dtop", ["dtop/variant=hybrid"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_every_evaluation_builds(name: str, overrides: list[str]):
    cfg = small(name, *overrides)
    assert cfg.benchmark == ("rparis6k" if "rparis6k" in str(overrides) else "roxford5k") and cfg.kappas == [1, 5, 10]
    get_transforms_by_cfg(cfg.transforms_val)
    assert get_extractor_by_cfg(cfg.extractor).feat_dim > 0
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize("variant", ["irt_l", "irt_r"])
def test_training_has_the_values_of_the_paper(variant: str):
    cfg = small("train_sfm120k", f"revisited/variant={variant}")
    sampler = cfg.sampler.args
    assert (sampler.n_tuples, sampler.n_negatives, sampler.n_pairs, sampler.n_candidates) == (5, 5, 2_000, 22_000)
    assert (cfg.optimizer.name, cfg.optimizer.args.lr, cfg.optimizer.args.weight_decay) == ("adam", 5e-7, 1e-6)
    assert cfg.max_epochs == 100 and cfg.criterion.args.margin == 0.85 and cfg.criterion.args.memory_size == 0
    assert cfg.criterion.args.get("entropy_weight") == {"irt_l": None, "irt_r": 4.0}[variant]
    extractor = get_extractor_by_cfg(cfg.extractor)
    get_criterion_by_cfg(cfg.criterion, label2category=None)
    get_optimizer_by_cfg(cfg.optimizer, params=extractor.parameters())
    assert get_transforms_by_cfg(cfg.transforms_train) is not None
    cfg.sampler.args.pairs = None
    labels = [label for label in range(300) for _ in range(8)]
    assert get_sampler_by_cfg(cfg.sampler, labels=labels, label2category=None).batch_size == 35
    assert len(get_sampler_by_cfg(cfg.sampler, labels=labels, label2category=None)) == 400


@pytest.mark.parametrize(
    ("backbone", "arch", "side"),
    [("deit_s", "deit_small_patch16_224", 224), ("deit_b_distilled_384", "deit_base_distilled_patch16_384", 384)],
)
def test_backbones_of_the_paper(backbone: str, arch: str, side: int):
    cfg = composed("revisited/evaluate_irt", f"revisited/backbone={backbone}", "irt/variant=irt_o")
    assert cfg.extractor.args.arch == arch and cfg.extractor.args.weights == f"{arch}.fb_in1k"
    assert cfg.transforms_val.args.im_size == side


def test_the_pca_of_sfm120k_is_that_of_the_evaluation():
    fitted, used = (
        composed(f"revisited/{name}", "irt/variant=irt_r_pca128", "checkpoint=c.ckpt", "pca=p.safetensors")
        for name in ("validate_sfm120k", "evaluate_irt")
    )
    assert fitted.extractor == used.extractor and fitted.transforms_val == used.transforms_val
    assert fitted.extractor.args.n_components == 128


def test_a_forgotten_checkpoint_is_named():
    with pytest.raises(Exception, match="checkpoint"):
        _ = composed("revisited/evaluate_irt").extractor.args.weights
