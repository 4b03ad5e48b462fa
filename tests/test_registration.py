"""What ``import oml_vit_ext`` does to OML's registries."""

from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
from oml.registry import EXTRACTORS_REGISTRY, LOSSES_REGISTRY, TRANSFORMS_REGISTRY, show_registry
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.samplers import get_sampler_by_cfg

import oml_vit_ext
from oml_vit_ext.extractors import IRTExtractor
from oml_vit_ext.losses import ContrastiveXBMLoss, IRTLoss

OURS = {
    "extractors": (EXTRACTORS_REGISTRY, ["irt"]),
    "losses": (LOSSES_REGISTRY, ["contrastive_xbm", "differential_entropy", "irt"]),
    "transforms": (TRANSFORMS_REGISTRY, ["augs_irt", "norm_resize_irt"]),
}


@pytest.mark.parametrize("registry, names", OURS.values(), ids=list(OURS))
def test_names_are_there(registry: dict, names: list[str]):
    assert set(names) <= set(registry)


def test_registering_again_changes_nothing():
    before = [dict(registry) for registry, _ in OURS.values()]
    oml_vit_ext.register()
    assert [dict(registry) for registry, _ in OURS.values()] == before


def test_a_taken_name_is_a_clear_error_and_nothing_is_registered(monkeypatch: pytest.MonkeyPatch):
    class Foreign:
        pass

    monkeypatch.setitem(LOSSES_REGISTRY, "irt", Foreign)
    monkeypatch.delitem(EXTRACTORS_REGISTRY, "irt")
    with pytest.raises(RuntimeError, match=r"LOSSES_REGISTRY of open-metric-learning already has 'irt': .*Foreign"):
        oml_vit_ext.register()
    assert "irt" not in EXTRACTORS_REGISTRY
    assert LOSSES_REGISTRY["irt"] is Foreign


def test_the_registry_still_prints(capsys: pytest.CaptureFixture[str]):
    show_registry()
    printed = capsys.readouterr().out
    assert "irt: IRTExtractor(weights:" in printed and "irt: IRTLoss(margin:" in printed


def test_constructors_have_the_promised_arguments_in_order():
    """Other people's code depends on them."""
    extractor = ["weights", "arch", "pooling", "normalise_features", "gem_p"]
    contrastive = ["margin", "memory_size", "memory_start", "memory_weight", "reduction"]
    irt = ["margin", "memory_size", "memory_start", "memory_weight", "entropy_weight", "reduction"]
    for constructor, promised in ((IRTExtractor, extractor), (ContrastiveXBMLoss, contrastive), (IRTLoss, irt)):
        parameters = inspect.signature(constructor).parameters.values()
        positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert positional == promised


def test_a_typing_error_in_the_yaml_of_a_criterion_is_not_dropped():
    cfg = {"name": "irt", "args": {"entropy_wieght": 4.0}}
    with pytest.raises(
        TypeError, match=r"argument of criterion 'irt': 'entropy_wieght': did you mean 'entropy_weight'"
    ):
        get_criterion_by_cfg(cfg)


def test_a_typing_error_in_the_yaml_of_a_sampler_is_not_dropped():
    cfg = {"name": "hard_tuples", "args": {"n_negative": 4}}
    with pytest.raises(TypeError, match=r"argument of sampler 'hard_tuples': 'n_negative': did you mean 'n_negatives'"):
        get_sampler_by_cfg(cfg, labels=np.arange(20) // 2, label2category=None)
    del cfg["args"]["n_negative"]
    assert get_sampler_by_cfg(cfg, labels=np.arange(20) // 2, label2category=None).n_negatives == 5
    oml = {"name": "balance", "args": {"n_labels": 2, "n_instances": 2, "unknown": 1}}
    assert get_sampler_by_cfg(oml, labels=np.arange(20) // 2, label2category=None) is not None  # as before


def test_the_oml_may_pass_what_it_passes_to_every_criterion():
    cfg = {"name": "irt", "args": {"entropy_weight": 4.0}}
    assert isinstance(get_criterion_by_cfg(cfg, label2category={0: "a"}), IRTLoss)


def test_the_oml_builds_its_own_criteria_as_before():
    cfg = {"name": "triplet_with_miner", "args": {"margin": 0.1, "miner": {"name": "all_triplets", "args": {}}}}
    assert type(get_criterion_by_cfg(cfg, label2category=None)).__name__ == "TripletLossWithMiner"


def test_importing_takes_no_optional_dependency():
    """Neither Lightning nor Hydra nor a plotting library is needed to use the parts in one's own code."""
    blocked = ["pytorch_lightning", "hydra", "sklearn", "pymilvus", "onnx", "tensorboard"]
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import oml_vit_ext\n"
        "from oml.registry import EXTRACTORS_REGISTRY\n"
        "assert 'irt' in EXTRACTORS_REGISTRY\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
