"""Puts the names of this package into OML's registries: the only module that knows all the others."""

from __future__ import annotations

import logging
from typing import Any

from oml.registry.losses import LOSSES_REGISTRY
from oml.registry.models import EXTRACTORS_REGISTRY, PAIRWISE_MODELS_REGISTRY
from oml.registry.optimizers import OPTIMIZERS_REGISTRY
from oml.registry.postprocessors import POSTPROCESSORS_REGISTRY
from oml.registry.samplers import SAMPLERS_REGISTRY
from oml.registry.transforms import TRANSFORMS_FOR_PRETRAINED, TRANSFORMS_REGISTRY

from oml_vit_ext import oml_patches
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

EXTRACTORS = {
    "irt": IRTExtractor,
    "hybrid_vit": HybridViTExtractor,
    "extractor_with_pca": ExtractorWithPCA,
    "extractor_with_head": ExtractorWithHead,
    "extractor_with_momentum": ExtractorWithMomentum,
}
LOSSES = {
    "contrastive_xbm": ContrastiveXBMLoss,
    "differential_entropy": DifferentialEntropyLoss,
    "irt": IRTLoss,
    "matryoshka": MatryoshkaLoss,
    "pml": PMLLoss,
}
OPTIMIZERS: dict[str, Any] = {"adamw_groups": AdamWGroups}
PAIRWISE_MODELS: dict[str, Any] = {"stir": STIRSiamese}
POSTPROCESSORS: dict[str, Any] = {
    "stir_reranker": STIRReranker,
    "query_expansion": QueryExpansion,
    "k_reciprocal": KReciprocalReranker,
    "chain": PostprocessorChain,
}
SAMPLERS: dict[str, Any] = {
    "group_size": GroupSizeSampler,
    "hard_tuples": HardTuplesSampler,
    "nearest_pairs": NearestPairsSampler,
}
TRANSFORMS = {
    "augs_irt": get_augs_irt,
    "norm_resize_irt": get_norm_resize_irt,
    "augs_dtop": get_augs_dtop,
    "norm_resize_dtop": get_norm_resize_dtop,
}


def register() -> None:
    """Fill OML's registries. Calling it again changes nothing.

    Raises:
        RuntimeError: A name is taken by something that is not ours. Nothing is registered then.
    """
    additions: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("EXTRACTORS_REGISTRY", EXTRACTORS_REGISTRY, EXTRACTORS),
        ("LOSSES_REGISTRY", LOSSES_REGISTRY, LOSSES),
        ("OPTIMIZERS_REGISTRY", OPTIMIZERS_REGISTRY, OPTIMIZERS),
        ("PAIRWISE_MODELS_REGISTRY", PAIRWISE_MODELS_REGISTRY, PAIRWISE_MODELS),
        ("POSTPROCESSORS_REGISTRY", POSTPROCESSORS_REGISTRY, POSTPROCESSORS),
        ("SAMPLERS_REGISTRY", SAMPLERS_REGISTRY, SAMPLERS),
        ("TRANSFORMS_REGISTRY", TRANSFORMS_REGISTRY, TRANSFORMS),
    ]
    for registry_name, registry, ours in additions:
        for name, constructor in ours.items():
            _raise_if_taken(registry_name, registry, name, constructor)
    for _, registry, ours in additions:
        registry.update(ours)
    for weights, point in STARTING_POINTS.items():
        TRANSFORMS_FOR_PRETRAINED.setdefault(
            weights, get_norm_resize_irt(point.resize, point.size, mean=point.mean, std=point.std)
        )
    # At INFO it tells which of its builds are not there, in words that look like errors in the log of every script.
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)
    oml_patches.apply(our_losses=LOSSES, our_samplers=SAMPLERS, our_postprocessors=POSTPROCESSORS)


def _raise_if_taken(registry_name: str, registry: dict[str, Any], name: str, constructor: Any) -> None:
    present = registry.get(name)
    if present is None or _full_name(present) == _full_name(constructor):
        return
    raise RuntimeError(
        f"{registry_name} of open-metric-learning already has {name!r}: {_full_name(present)}, expected nothing or "
        f"{_full_name(constructor)}. Register yours under another name."
    )


def _full_name(constructor: Any) -> str:
    return f"{getattr(constructor, '__module__', '?')}.{getattr(constructor, '__qualname__', repr(constructor))}"
