"""Names that are in no registry are told in a sentence, and caught as ever."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from omegaconf import OmegaConf
from oml.registry import loggers, losses, miners, models, optimizers, postprocessors, samplers, schedulers, transforms

from oml_vit_ext.oml_patches.unknown_names import UnknownNameError


@pytest.mark.parametrize(
    ("build", "name", "sentence"),
    [
        (models.get_extractor_by_cfg, "itr", "Unknown extractor 'itr': did you mean 'vit' or 'irt'?"),
        (models.get_pairwise_model_by_cfg, "stri", "Unknown pairwise model 'stri': did you mean 'stir'?"),
        (losses.get_criterion_by_cfg, "irtt", "Unknown criterion 'irtt': did you mean 'irt'?"),
        (miners.get_miner_by_cfg, "all_triplet", "Unknown miner 'all_triplet': did you mean 'all_triplets'"),
        (samplers.get_sampler_by_cfg, "balanced", "Unknown sampler 'balanced': did you mean 'balance'"),
        (
            transforms.get_transforms_by_cfg,
            "norm_resize",
            "Unknown transforms 'norm_resize': did you mean 'norm_resize_",
        ),
        (optimizers.get_optimizer_by_cfg, "adamm", "Unknown optimizer 'adamm': did you mean 'adam'"),
        (schedulers.get_scheduler_by_cfg, "cosine", "Unknown scheduler 'cosine': did you mean 'cosine_annealing'"),
        (postprocessors.get_postprocessor_by_cfg, "stir", "Unknown postprocessor 'stir'"),
        (loggers.get_logger_by_cfg, "tensorbord", "Unknown logger 'tensorbord': did you mean 'tensorboard'?"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_the_nearest_names_are_told(build: Any, name: str, sentence: str):
    with pytest.raises(KeyError) as told:
        build({"name": name, "args": {}})
    assert str(told.value).startswith(sentence) and isinstance(told.value, ValueError)
    again = pickle.loads(pickle.dumps(told.value))
    assert type(again) is UnknownNameError and str(again) == str(told.value)


def test_names_inside_others_and_by_keyword():
    with pytest.raises(KeyError, match="Unknown extractor 'vti': did you mean 'vit'"):
        models.get_extractor_by_cfg({"name": "extractor_with_mlp", "args": {"extractor": {"name": "vti", "args": {}}}})
    with pytest.raises(KeyError, match="Unknown miner 'hard'"):
        losses.get_criterion("triplet_with_miner", margin=0.1, miner={"name": "hard", "args": {}})
    with pytest.raises(KeyError, match="Unknown extractor"):
        models.get_extractor(model_name="itr")
    with pytest.raises(KeyError, match="Unknown weights with transforms 'vits16_dino_': did you mean 'vits16_dino'"):
        transforms.get_transforms_for_pretrained("vits16_dino_")
    with pytest.raises(TypeError, match="name"):
        optimizers.get_optimizer()


def test_the_registries_are_the_dictionaries_that_they_were():
    registry = models.EXTRACTORS_REGISTRY
    assert type(registry) is dict and "itr" not in registry and registry.get("itr") is None and "irt" in list(registry)
    assert pickle.loads(pickle.dumps(registry)).keys() == copy.copy(registry).keys()
    with pytest.raises(KeyError) as bare:
        registry["itr"]
    assert type(bare.value) is KeyError


def test_a_name_that_somebody_adds_later_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(optimizers.OPTIMIZERS_REGISTRY, "mine", lambda **_: "built")
    assert optimizers.get_optimizer_by_cfg({"name": "mine", "args": {}}) == "built"


BUILT: dict[str, Any] = {
    "extractor": models.get_extractor_by_cfg,
    "pairwise_model": models.get_pairwise_model_by_cfg,
    "losses": losses.get_criterion_by_cfg,
    "miners": miners.get_miner_by_cfg,
    "samplers": samplers.get_sampler_by_cfg,
    "transforms": transforms.get_transforms_by_cfg,
    "optimizers": optimizers.get_optimizer_by_cfg,
    "schedulers": schedulers.get_scheduler_by_cfg,
    "postprocessors": postprocessors.get_postprocessor_by_cfg,
    "loggers": loggers.get_logger_by_cfg,
}


@pytest.mark.parametrize("kind", BUILT)
def test_args_may_be_left_out(kind: str, monkeypatch: pytest.MonkeyPatch):
    module = {"extractor": models, "pairwise_model": models}.get(kind) or globals()[kind]
    registry = next(name for name in vars(module) if name.startswith(kind.upper()) and name.endswith("REGISTRY"))
    monkeypatch.setitem(vars(module)[registry], "mine", lambda a=None: ("built", a))
    for cfg in ({"name": "mine"}, {"name": "mine", "args": None}, OmegaConf.create({"name": "mine"})):
        before = dict(cfg)
        assert BUILT[kind](cfg) == ("built", None) and dict(cfg) == before
    assert BUILT[kind]({"name": "mine", "args": {"a": 1}}) == ("built", 1)
    for wrong in ({"args": {}}, {"name": ["mine"]}, {"name": "mine", "args": [1]}, "mine", None):
        with pytest.raises(
            KeyError, match=r"^A part of the config is .*, expected \{name: \.\.\., args: \{\.\.\.\}\}\.$"
        ):
            BUILT[kind](wrong)
