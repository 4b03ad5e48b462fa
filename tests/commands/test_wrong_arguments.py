"""Names and arguments of all that a config builds."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf, open_dict

from helpers.configs import composed
from oml_vit_ext.commands.wrong_arguments import wrong_arguments
from oml_vit_ext.registration import register

register()
TRIPLET = {"name": "triplet_with_miner", "args": {"margin": 0.1, "miner": {"name": "hard_triplets", "args": {}}}}


def _found(*overrides: str, name: str = "irt/train_photos", **parts: object) -> dict[str, str]:
    cfg = composed(name, *overrides)
    with open_dict(cfg):
        for key, part in parts.items():
            cfg[key] = part
    return {mistake.key: mistake.sentence for mistake in wrong_arguments(cfg)}


@pytest.mark.parametrize(
    "name", ["irt/train_sop", "irt/train_inshop", "irt/train_photos", "dtop/train_sfm120k", "dtop/train_photos",
             "stir/train_first_stage_photos", "stir/train_first_stage_sop", "revisited/train_sfm120k"],
)  # fmt: skip
def test_our_own_trainings_have_none(name: str):
    assert not _found(name=name)


@pytest.mark.parametrize(
    ("override", "key", "near"),
    [
        ("+extractor.args.poolng=cls", "extractor.args.poolng", "'pooling'"),
        ("extractor.name=itr", "extractor.name", "'irt'"),
        ("criterion.name=irtt", "criterion.name", "'irt'"),
        ("+criterion.args.entropy_wieght=1", "criterion.args.entropy_wieght", "'entropy_weight'"),
        ("+transforms_train.args.crop_sise=96", "transforms_train.args.crop_sise", "'crop_size'"),
        ("+sampler.args.n_lables=3", "sampler.args.n_lables", "'n_labels'"),
        ("+optimizer.args.weight_dekay=1", "optimizer.args.weight_dekay", "'weight_decay'"),
        ("+metric_args.cmc_topk=[1]", "metric_args.cmc_topk", "'cmc_top_k'"),
        ("metric_for_checkpointing=OVERALL/cmc/5", "metric_for_checkpointing", "Add 5 to metric_args.cmc_top_k"),
        ("+lightning_trainer_extra_args.max_step=3", "lightning_trainer_extra_args.max_step", "'max_steps'"),
        ("+valid_perod=3", "valid_perod", "'valid_period'"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(override: str, key: str, near: str):
    assert near in _found(override)[key]


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("optimizer.args.lr=abc", "optimizer.args.lr", "expected a number"),
        ("criterion.args.margin=much", "criterion.args.margin", "expected a number"),
        ("images.crop=84.5", "transforms_train.args.crop_size", "expected a whole number"),
        ("sampler.args.n_labels=[3]", "sampler.args.n_labels", "expected a whole number"),
        ("dataset_root=???", "dataset_root", "is not set"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(override: str, key: str, expected: str):
    assert expected in _found(override)[key]


def test_oml_s_own_objects_are_looked_at_as_well():
    """OML drops unknown arguments of its losses without a word."""
    wrong = {"name": "triplet_with_miner", "args": {**TRIPLET["args"], "margn": 1}}
    assert "'margin'" in _found(criterion=wrong)["criterion.args.margn"]
    assert not _found(criterion=TRIPLET)
    miner = {"name": "hard_tripletz", "args": {}}
    inner = _found(criterion={"name": "triplet_with_miner", "args": {"margin": 0.1, "miner": miner}})
    assert "'hard_triplets'" in inner["criterion.args.miner.name"]
    scheduler = {"scheduler": {"name": "cosine_annealing", "args": {"T_maxx": 3}}, "scheduler_interval": "step"}
    found = _found(scheduling=scheduler)
    assert (
        "'T_max'" in found["scheduling.scheduler.args.T_maxx"]
        and "needs it" in found["scheduling.scheduler.args.T_max"]
    )


def test_a_value_that_refers_to_a_missing_one_is_told_once():
    cfg = OmegaConf.create({"seed": "???", "cache_size": "${seed}"})
    assert [mistake.key for mistake in wrong_arguments(cfg)] == ["seed"]
