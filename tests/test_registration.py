"""What ``import oml_vit_ext`` does to OML's registries."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from oml.registry import EXTRACTORS_REGISTRY, LOSSES_REGISTRY, SAMPLERS_REGISTRY, TRANSFORMS_REGISTRY, show_registry
from oml.registry.losses import get_criterion_by_cfg
from oml.registry.models import PAIRWISE_MODELS_REGISTRY
from oml.registry.optimizers import OPTIMIZERS_REGISTRY
from oml.registry.postprocessors import POSTPROCESSORS_REGISTRY
from oml.registry.samplers import get_sampler_by_cfg
from oml.registry.transforms import TRANSFORMS_FOR_PRETRAINED

import oml_vit_ext
from oml_vit_ext.extractors import (
    ExtractorWithHead,
    ExtractorWithMomentum,
    ExtractorWithPCA,
    HybridViTExtractor,
    IRTExtractor,
)
from oml_vit_ext.extractors.starting_points import STARTING_POINTS
from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, MatryoshkaLoss, PMLLoss
from oml_vit_ext.optimizers import AdamWGroups
from oml_vit_ext.reranking import (
    KReciprocalReranker,
    PostprocessorChain,
    QueryExpansion,
    STIRReranker,
    STIRSiamese,
)
from oml_vit_ext.samplers import GroupSizeSampler, HardTuplesSampler, NearestPairsSampler
from oml_vit_ext.transforms.dtop import get_augs_dtop, get_norm_resize_dtop
from oml_vit_ext.transforms.irt import get_augs_irt, get_norm_resize_irt

REGISTRIES: dict[str, dict[str, Any]] = {
    "EXTRACTORS": EXTRACTORS_REGISTRY,
    "LOSSES": LOSSES_REGISTRY,
    "OPTIMIZERS": OPTIMIZERS_REGISTRY,
    "PAIRWISE_MODELS": PAIRWISE_MODELS_REGISTRY,
    "POSTPROCESSORS": POSTPROCESSORS_REGISTRY,
    "TRANSFORMS": TRANSFORMS_REGISTRY,
    "SAMPLERS": SAMPLERS_REGISTRY,
}
# The names that other people's configs depend on.
OURS: dict[tuple[str, str], Any] = {
    ("EXTRACTORS", "irt"): IRTExtractor,
    ("EXTRACTORS", "hybrid_vit"): HybridViTExtractor,
    ("EXTRACTORS", "extractor_with_pca"): ExtractorWithPCA,
    ("EXTRACTORS", "extractor_with_head"): ExtractorWithHead,
    ("EXTRACTORS", "extractor_with_momentum"): ExtractorWithMomentum,
    ("LOSSES", "contrastive_xbm"): ContrastiveXBMLoss,
    ("LOSSES", "differential_entropy"): DifferentialEntropyLoss,
    ("LOSSES", "irt"): IRTLoss,
    ("LOSSES", "matryoshka"): MatryoshkaLoss,
    ("LOSSES", "pml"): PMLLoss,
    ("OPTIMIZERS", "adamw_groups"): AdamWGroups,
    ("PAIRWISE_MODELS", "stir"): STIRSiamese,
    ("POSTPROCESSORS", "stir_reranker"): STIRReranker,
    ("POSTPROCESSORS", "query_expansion"): QueryExpansion,
    ("POSTPROCESSORS", "k_reciprocal"): KReciprocalReranker,
    ("POSTPROCESSORS", "chain"): PostprocessorChain,
    ("TRANSFORMS", "augs_irt"): get_augs_irt,
    ("TRANSFORMS", "norm_resize_irt"): get_norm_resize_irt,
    ("TRANSFORMS", "augs_dtop"): get_augs_dtop,
    ("TRANSFORMS", "norm_resize_dtop"): get_norm_resize_dtop,
    ("SAMPLERS", "group_size"): GroupSizeSampler,
    ("SAMPLERS", "hard_tuples"): HardTuplesSampler,
    ("SAMPLERS", "nearest_pairs"): NearestPairsSampler,
}
IDS = [f"{registry}-{name}" for registry, name in OURS]
# OML's function prints these alone.
PRINTED = ("EXTRACTORS", "LOSSES", "SAMPLERS", "TRANSFORMS")


@pytest.mark.parametrize("key", OURS, ids=IDS)
def test_each_name_is_there(key: tuple[str, str]):
    registry, name = key
    assert REGISTRIES[registry][name] is OURS[key]


def test_no_registry_holds_another_name_of_ours():
    ours = {
        (registry, name)
        for registry, entries in REGISTRIES.items()
        for name, constructor in entries.items()
        if constructor.__module__.startswith("oml_vit_ext.")
    }
    assert ours == set(OURS)


def test_registering_again_changes_nothing():
    filled = [*REGISTRIES.values(), TRANSFORMS_FOR_PRETRAINED]
    before = [dict(registry) for registry in filled]
    oml_vit_ext.register()
    assert [dict(registry) for registry in filled] == before


@pytest.mark.parametrize("key", OURS, ids=IDS)
def test_a_taken_name_is_a_clear_error_and_nothing_is_registered(key: tuple[str, str], monkeypatch: pytest.MonkeyPatch):
    class Foreign:
        pass

    for registry, name in OURS:
        monkeypatch.delitem(REGISTRIES[registry], name)
    taken, name = key
    monkeypatch.setitem(REGISTRIES[taken], name, Foreign)
    with pytest.raises(
        RuntimeError, match=rf"{taken}_REGISTRY of open-metric-learning already has '{name}': .*Foreign"
    ):
        oml_vit_ext.register()
    assert REGISTRIES[taken][name] is Foreign
    assert not [(r, n) for r, n in OURS if n in REGISTRIES[r] and (r, n) != key]


@pytest.mark.parametrize("key", [key for key in OURS if key[0] in PRINTED], ids="-".join)
def test_the_registry_still_prints(key: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    show_registry()
    registry, name = key
    # OML prints the type of a transform, which is a function, in the place of its name.
    printed_name = "function" if registry == "TRANSFORMS" else OURS[key].__name__
    assert f"{name}: {printed_name}{inspect.signature(OURS[key])}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("key", [key for key in OURS if key[0] not in PRINTED], ids="-".join)
def test_what_oml_does_not_print_has_a_name_and_a_signature_too(key: tuple[str, str]):
    constructor = REGISTRIES[key[0]][key[1]]
    assert inspect.isclass(constructor) and inspect.signature(constructor).parameters  # no partial: it has no name


def test_starting_points_are_registered_with_their_transforms():
    """Which ones: ``tests/extractors/test_starting_points.py``."""
    expected = get_norm_resize_irt(im_size=439, crop_size=384)
    assert str(TRANSFORMS_FOR_PRETRAINED["deit_base_patch16_384.fb_in1k"]) == str(expected)
    assert STARTING_POINTS.keys() <= TRANSFORMS_FOR_PRETRAINED.keys()


def test_constructors_have_the_promised_arguments_in_order():
    """Other people's code depends on them."""
    promised = {
        IRTExtractor: ["weights", "arch", "pooling", "normalise_features", "gem_p"],
        HybridViTExtractor: [
            "weights",
            "arch",
            "n_layers",
            "embed_dim",
            "branches",
            "enhanced_locality",
            "normalise_features",
        ],
        ExtractorWithPCA: ["extractor", "weights", "n_components", "whiten", "normalise_features"],
        ExtractorWithHead: ["extractor", "weights", "dims", "normalise_features"],
        ExtractorWithMomentum: ["extractor", "momentum"],
        ContrastiveXBMLoss: ["margin", "memory_size", "memory_start", "memory_weight", "reduction"],
        DifferentialEntropyLoss: ["eps"],
        IRTLoss: ["margin", "memory_size", "memory_start", "memory_weight", "entropy_weight", "reduction"],
        PMLLoss: ["loss", "distance", "reducer", "miner", "regularizer", "memory_size"],
        MatryoshkaLoss: ["criterion", "dims", "weights", "label2category"],
        AdamWGroups: ["params", "lr", "criterion_lr_factor", "layer_decay", "weight_decay", "betas", "eps"],
        STIRSiamese: ["extractor", "mlp_hidden_dims", "use_tta", "join_layer", "weights"],
        STIRReranker: ["top_n", "pairwise_model", "num_workers", "batch_size", "verbose", "use_fp16"],
    }
    for constructor, names in promised.items():
        parameters = inspect.signature(constructor).parameters.values()
        positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
        assert positional == names, constructor


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


def _in_a_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_takes_no_optional_dependency():
    """Neither Lightning nor Hydra nor a plotting library is needed to use the parts in one's own code."""
    blocked = ["pytorch_lightning", "hydra", "sklearn", "pymilvus", "onnx", "tensorboard"]
    _in_a_fresh_process(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import oml_vit_ext\n"
        "from oml.registry import EXTRACTORS_REGISTRY\n"
        "assert 'irt' in EXTRACTORS_REGISTRY\n"
    )


def test_importing_loads_nothing_that_oml_has_not_loaded_but_two_small_libraries():
    printed = _in_a_fresh_process(
        "import sys, json\n"
        "import oml.registry, oml.registry.postprocessors\n"
        "before = set(sys.modules)\n"
        "import oml_vit_ext\n"
        "oml.registry.show_registry()\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))\n"
    )
    new = set(json.loads(printed.splitlines()[-1])) - sys.stdlib_module_names
    assert new <= {"hydra_plugins", "oml_vit_ext", "safetensors", "wrapt"}


@pytest.mark.parametrize(
    "imports",
    [
        "import oml_vit_ext\nimport oml.registry",
        "import oml.registry\nimport oml_vit_ext",
        "from oml_vit_ext.reranking import STIRReranker",  # its modules import OML's registries in their middle
        "import oml_vit_ext\noml_vit_ext.register()",
    ],
)
def test_the_names_are_there_in_whatever_order_things_are_imported(imports: str):
    _in_a_fresh_process(
        f"{imports}\nfrom oml.registry import EXTRACTORS_REGISTRY\n"
        "from oml.registry.postprocessors import POSTPROCESSORS_REGISTRY\n"
        "assert 'irt' in EXTRACTORS_REGISTRY and 'stir_reranker' in POSTPROCESSORS_REGISTRY\n"
    )


def test_importing_the_package_alone_is_cheap():
    _in_a_fresh_process("import sys\nimport oml_vit_ext\nassert not {'torch', 'oml', 'numpy'} & set(sys.modules)\n")
