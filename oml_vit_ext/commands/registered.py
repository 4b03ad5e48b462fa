"""All registries of OML, ours among them, by what they build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def registries() -> dict[str, Mapping[str, Any]]:
    """What is built -> name -> constructor. OML's ``show_registry`` leaves pairwise models and postprocessors out."""
    from oml.registry.loggers import LOGGERS_REGISTRY
    from oml.registry.losses import LOSSES_REGISTRY
    from oml.registry.miners import MINERS_REGISTRY
    from oml.registry.models import EXTRACTORS_REGISTRY, PAIRWISE_MODELS_REGISTRY
    from oml.registry.optimizers import OPTIMIZERS_REGISTRY
    from oml.registry.postprocessors import POSTPROCESSORS_REGISTRY
    from oml.registry.samplers import SAMPLERS_REGISTRY
    from oml.registry.schedulers import SCHEDULERS_REGISTRY
    from oml.registry.transforms import TRANSFORMS_REGISTRY

    return {
        "extractor": EXTRACTORS_REGISTRY,
        "criterion": LOSSES_REGISTRY,
        "miner": MINERS_REGISTRY,
        "sampler": SAMPLERS_REGISTRY,
        "transforms": TRANSFORMS_REGISTRY,
        "pairwise_model": PAIRWISE_MODELS_REGISTRY,
        "postprocessor": POSTPROCESSORS_REGISTRY,
        "optimizer": OPTIMIZERS_REGISTRY,
        "scheduler": SCHEDULERS_REGISTRY,
        "logger": LOGGERS_REGISTRY,
    }
