"""Every config in ``configs/stir/`` composes with Hydra and builds its objects without a download."""

from __future__ import annotations

import pytest
import torch
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg, get_pairwise_model_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.postprocessors import get_postprocessor_by_cfg
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.schedulers import get_scheduler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg
from torch import nn
from torchvision.transforms import RandomResizedCrop

from helpers import ROOT
from helpers.configs import composed

STIR = ROOT / "configs" / "stir"
DATA = ["demo", "grocery", "inshop", "photos", "sop"]
ROLES = ["train_first_stage", "validate_first_stage", "train_reranker", "validate_reranker"]
RUNS = [f"{role}_{data}" for role in ROLES for data in DATA]
PARTS = ["metrics", "reranker", "run", "training", *ROLES]
FIRST_STAGES = ["irt_r", "vit_triplet"]
TWO_BLOCKS = "+extractor.args.timm_args.depth=2"  # the architectures of the configs, quicker to build
FROM_OUTSIDE = {"dataset_root", "pretrained", "first_stage_checkpoint", "checkpoint"}


def small(name: str, *overrides: str) -> DictConfig:
    """A run without weights from outside, of two blocks."""
    depth = TWO_BLOCKS.removeprefix("+") if name.endswith("demo") else TWO_BLOCKS
    cfg = composed(f"stir/{name}", depth, *overrides)
    if cfg.get("join_layer", 0) > 1:
        cfg.join_layer = 1
    return OmegaConf.merge(cfg, dict.fromkeys(FROM_OUTSIDE & set(cfg.keys())))


def test_no_config_is_forgotten():
    known = {*RUNS, *PARTS, *(f"dataset/{d}" for d in DATA), *(f"first_stage/{f}" for f in FIRST_STAGES)}
    assert {str(p.relative_to(STIR).with_suffix("")) for p in STIR.rglob("*.yaml")} == known


@pytest.mark.parametrize("name", RUNS)
def test_every_run_composes_and_builds(name: str):
    cfg = small(name)
    assert not OmegaConf.missing_keys(cfg)
    extractor = get_extractor_by_cfg(cfg.extractor).eval()
    crop = cfg.images.crop
    assert torch.linalg.norm(extractor(torch.rand(1, 3, crop, crop))).item() == pytest.approx(1, abs=1e-4)
    for key in (key for key in cfg if key.startswith("transforms")):
        get_transforms_by_cfg(cfg[key])
    if name.startswith("train"):
        sampler = get_sampler_by_cfg(cfg.sampler, labels=[i // 4 for i in range(4 * 150)], label2category=None)
        assert sampler.batch_size == len(next(iter(sampler)))
        get_optimizer_by_cfg(cfg.optimizer, params=extractor.parameters())
    if "first_stage" in name:
        assert "postprocessor" not in cfg
        return
    reranker = get_postprocessor_by_cfg(cfg.postprocessor)
    assert (type(reranker).__name__, reranker.top_n) == ("STIRReranker", 5)
    assert reranker.model.predict(*torch.rand(2, 2, 3, crop, crop)).shape == (2,)


@pytest.mark.parametrize("name", ["train_first_stage_sop", "train_first_stage_demo"])
def test_the_first_stages_criterion_builds(name: str):
    criterion = get_criterion_by_cfg(small(name).criterion, label2category=None)
    assert type(criterion).__name__ == "TripletLossWithMiner" and criterion.tri_loss.margin == 0.15


@pytest.mark.parametrize("data", ["inshop", "sop"])
def test_the_papers_first_stage(data: str):
    cfg = composed(f"stir/train_first_stage_{data}")
    args = cfg.extractor.args
    assert (args.arch, args.weights) == ("vit_small_patch16_224", "vit_small_patch16_224.dino")
    assert (cfg.criterion.args.margin, cfg.criterion.args.miner.name) == (0.15, "hard_triplets")
    assert cfg.sampler.args == {"n_labels": 150, "n_instances": 4}
    assert (cfg.optimizer.name, cfg.optimizer.args.lr) == ("adamw", 1e-5)
    assert crop_of(cfg) == ((224, 224), (0.2, 1.0))


@pytest.mark.parametrize("data", ["inshop", "sop"])
def test_the_papers_second_stage(data: str):
    cfg = composed(f"stir/train_reranker_{data}", "first_stage_checkpoint=first.ckpt")
    model = cfg.postprocessor.args.pairwise_model
    assert (model.name, model.args.join_layer, model.args.mlp_hidden_dims) == ("stir", 0, [192])
    assert model.args.extractor.args.arch == "vit_small_patch16_224"
    assert model.args.extractor.args.weights == cfg.extractor.args.weights == "first.ckpt"
    assert cfg.sampler.args == {"n_labels": 30, "n_instances": 4} and cfg.hard_pairs_mining
    assert cfg.postprocessor.args.top_n == 5 and cfg.freeze_n_epochs == 3
    assert crop_of(cfg) == ((224, 224), (0.8, 1.0))
    assert rates(cfg, epochs=5) == pytest.approx([2e-3] * 3 + [1e-5] * 2)


def crop_of(cfg: DictConfig) -> tuple[tuple[int, int], tuple[float, float]]:
    """Size and scale of the random crop."""
    transforms = get_transforms_by_cfg(cfg.transforms_train).transforms
    crop = next(t for t in transforms if isinstance(t, RandomResizedCrop))
    return tuple(crop.size), tuple(crop.scale)  # type: ignore[return-value]


def rates(cfg: DictConfig, epochs: int) -> list[float]:
    """The learning rate of each epoch."""
    assert (cfg.scheduling.scheduler_interval, cfg.scheduling.scheduler_frequency) == ("epoch", 1)
    optimizer = get_optimizer_by_cfg(cfg.optimizer, params=nn.Linear(1, 1).parameters())
    scheduler = get_scheduler_by_cfg(cfg.scheduling.scheduler, optimizer=optimizer)
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_the_demos_rate_drops_with_its_thaw():
    cfg = composed("stir/train_reranker_demo", "freeze_n_epochs=2")
    high, still_high, low = rates(cfg, epochs=3)
    assert high == still_high > low
    assert rates(composed("stir/train_reranker_demo"), epochs=2) == pytest.approx([1e-4] * 2)  # nothing is frozen


def test_join_layer_and_symmetry_reach_the_model():
    cfg = small("validate_reranker_demo", "join_layer=1", "use_tta=True", "top_n=7")
    reranker = get_postprocessor_by_cfg(cfg.postprocessor)
    assert (reranker.model.join_layer, reranker.model.use_tta, reranker.top_n) == (1, True, 7)


@pytest.mark.parametrize("role", ROLES[1:])
def test_irt_r_can_be_the_first_stage(role: str):
    cfg = small(f"{role}_sop", "stir/first_stage=irt_r")
    assert cfg.extractor.args.arch == "deit_small_patch16_224"
    transforms = get_transforms_by_cfg(cfg.transforms_extraction if "train" in role else cfg.transforms_val)
    assert [t.size for t in transforms.transforms[:2]] == [256, (224, 224)]
    if "reranker" in role:
        assert cfg.postprocessor.args.pairwise_model.args.extractor.args.arch == "deit_small_patch16_224"


def test_training_vit_triplet_is_for_vit_triplet():
    with pytest.raises(ConfigCompositionException, match="stir/first_stage"):
        composed("stir/train_first_stage_sop", "stir/first_stage=irt_r")


@pytest.mark.parametrize(("role", "keys"), [("train", ["first_stage_checkpoint"]), ("validate", ["checkpoint"])])
def test_what_only_the_user_knows_is_missing(role: str, keys: list[str]):
    assert set(keys) <= OmegaConf.missing_keys(composed(f"stir/{role}_reranker_sop"))


def test_a_pair_model_by_its_group_alone():
    cfg = composed("pairwise_model/stir", "pairwise_model.args.extractor.args.weights=null").pairwise_model
    assert get_pairwise_model_by_cfg(cfg).join_layer == 0


def test_a_re_ranker_by_its_group_alone():
    null = "postprocessor.args.pairwise_model.args.extractor.args.weights=null"
    cfg = composed("postprocessor/stir_reranker", null).postprocessor
    assert get_postprocessor_by_cfg(cfg).top_n == 5


def test_no_embeddings_are_kept_between_runs():
    """OML's cache takes a checkpoint for the one of the same name before it."""
    for data in DATA:
        assert composed(f"stir/train_reranker_{data}").embeddings_cache_dir is None
