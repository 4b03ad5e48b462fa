"""Every config in ``configs/irt`` and of the groups that all share composes and builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import get_extractor_by_cfg
from oml.registry.optimizers import get_optimizer_by_cfg
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.transforms import get_transforms_by_cfg

from helpers import ROOT
from helpers.configs import composed

CONFIGS = ROOT / "configs"
# Parts that are only used by others: they have no meaning on their own.
PARTS = {"irt/run", "irt/train", "irt/validate", "irt/predict"}
RUNS = sorted(
    str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.glob("*/*_*.yaml") if p.parent.name in {"irt"}
)
GROUPS = {
    "extractor": get_extractor_by_cfg,
    "criterion": get_criterion_by_cfg,
    "transforms": get_transforms_by_cfg,
    "optimizer": lambda cfg: get_optimizer_by_cfg(cfg, params=[torch.nn.Parameter(torch.ones(2))]),
}
# Parts of all runs; families with a test file of their own; groups that test_stir.py builds.
TESTED_ELSEWHERE = {"common", "dtop", "stir", "revisited", "pairwise_model", "postprocessor", "study"}
# Extractors that take their values from the run that names them; built there.
FORMER_NAMES = {
    f"{model}_{old}": f"{model}_{new}"
    for model in ("irt", "hybrid_vit")
    for old, new in (("train", "from_pretrained"), ("trained", "from_checkpoint"))
}
FROM_A_RUN = {*FORMER_NAMES, *FORMER_NAMES.values()}
VARIANTS = sorted(p.stem for p in (CONFIGS / "irt/variant").glob("*.yaml"))
LABELS = [label for label in range(40) for _ in range(4)]


def _offline(cfg: DictConfig) -> DictConfig:
    """The same config with random weights in place of a download, and fewer blocks to build."""
    OmegaConf.set_struct(cfg, False)
    cfg = OmegaConf.merge(
        cfg, {"pretrained": None, "checkpoint": None, "pca": None, "head": None, "timm_args": {"depth": 2}}
    )
    OmegaConf.update(cfg, "extractor.args.weights", None)
    if cfg.extractor.name == "extractor_with_head":
        cfg.extractor.args.dims = [8]  # of a file they are known
    return cfg


def test_no_config_is_forgotten():
    known = PARTS | set(RUNS) | {f"irt/variant/{v}" for v in VARIANTS}
    known |= {str(p.relative_to(CONFIGS).with_suffix("")) for p in (CONFIGS / "irt/dataset").glob("*.yaml")}
    known |= {f"irt/postprocessor/{p.stem}" for p in (CONFIGS / "postprocessor").glob("[!s]*.yaml")}
    known |= {f"{g}/{p.stem}" for g in GROUPS for p in (CONFIGS / g).glob("*.yaml")}
    present = {str(p.relative_to(CONFIGS).with_suffix("")) for p in CONFIGS.rglob("*.yaml")}
    assert {name for name in present if name.split("/")[0] not in TESTED_ELSEWHERE} == known


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_group_config_builds(group: str):
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        cfg = composed(f"{group}/{path.stem}")[group]
        if path.stem in FROM_A_RUN:
            continue
        if group == "extractor":
            OmegaConf.update(cfg, "args.weights", None)
            if "extractor" in cfg.args:
                cfg.args.extractor.args.weights = None
        assert GROUPS[group](cfg) is not None


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", RUNS)
def test_every_run_composes_and_builds(name: str, variant: str):
    if "train" in name and variant in ("irt_o", "irt_r_pca128", "head"):
        variant = "irt_r"  # off the shelf, or trained before: there is nothing to train
    cfg = _offline(composed(name, f"irt/variant={variant}"))
    extractor = get_extractor_by_cfg(cfg.extractor)
    for key in (k for k in cfg if k.startswith("transforms")):
        get_transforms_by_cfg(cfg[key])
    if "train" in name:
        get_criterion_by_cfg(cfg.criterion, label2category=None)
        optimizer = get_optimizer_by_cfg(cfg.optimizer, params=extractor.parameters())
        assert optimizer.defaults["lr"] > 0 and isinstance(optimizer.defaults["weight_decay"], float)
        if cfg.sampler:
            sampler = get_sampler_by_cfg(cfg.sampler, labels=LABELS, label2category=None)
            assert sampler.batch_size == len(next(iter(sampler)))
        assert cfg.iterations % cfg.valid_iterations == 0, "the last iterations would not be validated"
    assert not OmegaConf.missing_keys(cfg)


@pytest.mark.parametrize(
    ("data", "iterations", "memory", "ks"),
    [
        ("sop", 35_000, 59_551, [1, 10, 100, 1000]),
        ("cub", 2_000, 5_864, [1, 2, 4, 8]),
        ("inshop", 35_000, round(0.2 * 25_882), [1, 10, 20, 30]),
    ],
)
def test_the_papers_hyper_parameters(data: str, iterations: int, memory: int, ks: list[int]):
    cfg = composed(f"irt/train_{data}", "irt/variant=irt_r")
    extractor = cfg.extractor.args.extractor if data == "inshop" else cfg.extractor
    assert (extractor.name, extractor.args.weights) == ("irt", "deit_small_patch16_224.fb_in1k")
    assert extractor.args.arch == "deit_small_patch16_224" and extractor.args.pooling == "cls"
    assert cfg.criterion.args.margin == 0.5 and cfg.criterion.args.entropy_weight == 0.7
    assert cfg.criterion.args.memory_size == memory
    assert cfg.lightning_trainer_extra_args.max_steps == iterations
    assert cfg.metric_args.cmc_top_k == ks
    assert (cfg.optimizer.name, cfg.optimizer.args.lr, cfg.optimizer.args.weight_decay) == ("adamw", 3e-5, 5e-4)
    batch = cfg.bs_train or cfg.sampler.args.n_labels * cfg.sampler.args.n_instances
    assert batch == 64
    assert cfg.transforms_train.args == {"im_size": 256, "crop_size": 224}


def test_small_data_is_the_recipe_of_the_study():
    cfg = composed("irt/small_data")
    rows = json.loads((ROOT / "docs/results/study.json").read_text())
    settings = next(row["settings"] for row in rows if row["method"] == "irt_r")
    assert settings == {key: OmegaConf.select(cfg, key) for key in settings}
    assert get_criterion_by_cfg(cfg.criterion).criterion_name
    assert cfg.iterations % cfg.valid_iterations == 0 and cfg.images.crop == 224 and cfg.accelerator is None


def test_only_the_memory_of_inshop_is_of_a_moving_average():
    names = {data: composed(f"irt/train_{data}").extractor.name for data in ("sop", "cub", "inshop")}
    assert names == {"sop": "irt", "cub": "irt", "inshop": "extractor_with_momentum"}
    args = composed("irt/train_inshop").extractor.args
    assert (args.momentum, args.weights) == (0.999, None)


def test_variants_differ_by_the_criterion_alone():
    left, right = (OmegaConf.to_container(composed("irt/train_sop", f"irt/variant={v}")) for v in ("irt_l", "irt_r"))
    assert {k for k in left if left[k] != right[k]} == {"variant", "criterion"}


@pytest.mark.parametrize(("old", "new"), FORMER_NAMES.items())
def test_former_names_of_extractors_still_work(old: str, new: str):
    run = "irt/validate_sop" if old.startswith("irt") else "dtop/validate_sfm120k"
    assert composed(run, f"extractor={old}") == composed(run, f"extractor={new}")
    inside = [run, "extractor=extractor_with_pca"]
    former, current = (composed(*inside, f"extractor@extractor.args.extractor={name}") for name in (old, new))
    assert former == current and former.extractor.args.extractor.name in new


def test_off_the_shelf_needs_no_checkpoint():
    cfg = composed("irt/validate_sop", "irt/variant=irt_o")
    assert cfg.extractor.args.weights == "deit_small_patch16_224.fb_in1k"


def test_a_forgotten_checkpoint_is_named():
    with pytest.raises(Exception, match="checkpoint"):
        _ = composed("irt/validate_sop", "irt/variant=irt_r").extractor.args.weights


def test_all_yaml_files_end_with_a_newline_and_hold_no_machine_path():
    for path in CONFIGS.rglob("*.yaml"):
        text = Path(path).read_text()
        assert text.endswith("\n") and "/home/" not in text


def test_the_demo_model_takes_the_demo_images():
    cfg = _offline(composed("irt/validate_demo"))
    assert get_extractor_by_cfg(cfg.extractor).eval()(torch.zeros(1, 3, 48, 48)).shape == (1, 192)
