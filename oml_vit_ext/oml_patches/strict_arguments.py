"""Wrong arguments of our losses and samplers are errors: OML drops them without a word."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import oml.registry.losses as oml_losses
import oml.registry.samplers as oml_samplers
from torch import nn

from oml_vit_ext.common.messages import unknown_name

logger = logging.getLogger(__name__)

# What the training pipeline passes to every criterion and sampler, whether its constructor asks for it or not.
_PASSED_TO_ALL = {"label2category", "labels"}


def build_losses_strictly(our_losses: Mapping[str, Any]) -> None:
    """OML drops arguments of a criterion that its constructor does not name, so a typo in YAML trains another
    loss without a word; and it takes any ``miner`` for one of its own. Our losses are built here instead.
    """
    oml_get_criterion = oml_losses.get_criterion
    if getattr(oml_get_criterion, "_from_oml_vit_ext", False):
        return

    def get_criterion(name: str, **kwargs: Any) -> nn.Module:
        if name not in our_losses or oml_losses.LOSSES_REGISTRY.get(name) is not our_losses[name]:
            return oml_get_criterion(name, **kwargs)
        return our_losses[name](**_accepted("criterion", name, our_losses[name], kwargs))

    get_criterion._from_oml_vit_ext = True  # type: ignore[attr-defined]
    oml_losses.get_criterion = get_criterion
    logger.info("open-metric-learning: wrong arguments of %s raise an error", ", ".join(our_losses))


def build_samplers_strictly(our_samplers: Mapping[str, Any]) -> None:
    """OML drops wrong arguments of samplers as it does those of criteria."""
    oml_get_sampler = oml_samplers.get_sampler
    if getattr(oml_get_sampler, "_from_oml_vit_ext", False):
        return

    def get_sampler(name: str, **kwargs: Any) -> Any:
        if name in our_samplers and oml_samplers.SAMPLERS_REGISTRY.get(name) is our_samplers[name]:
            kwargs = _accepted("sampler", name, our_samplers[name], kwargs)
        return oml_get_sampler(name, **kwargs)

    get_sampler._from_oml_vit_ext = True  # type: ignore[attr-defined]
    oml_samplers.get_sampler = get_sampler
    logger.info("open-metric-learning: wrong arguments of %s raise an error", ", ".join(our_samplers))


def _accepted(kind: str, name: str, constructor: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments without those that the pipeline passes to everybody.

    Raises:
        TypeError: The constructor does not know one of the others.
    """
    accepted = inspect.signature(constructor).parameters
    for argument in kwargs:
        if argument not in accepted and argument not in _PASSED_TO_ALL:
            raise TypeError(unknown_name(f"argument of {kind} {name!r}:", argument, accepted))
    return {k: v for k, v in kwargs.items() if k in accepted}
