"""Narrow repairs of the host where its behaviour would lose what a user wrote. Each one is logged when applied."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any

import oml.registry.losses as host_losses
import oml.registry.samplers as host_samplers
from torch import nn

from oml_vit_ext.compat_freeze import freeze_in_training
from oml_vit_ext.compat_mining import introduce_samplers
from oml_vit_ext.compat_validation import validate_on_embeddings
from oml_vit_ext.messages import unknown_name

logger = logging.getLogger(__name__)

# What the training pipeline passes to every criterion and sampler, whether its constructor asks for it or not.
_PASSED_TO_ALL = {"label2category", "labels"}


def apply(
    our_losses: Mapping[str, Any], our_samplers: Mapping[str, Any], our_postprocessors: Mapping[str, Any]
) -> None:
    """Apply all repairs; calling it again changes nothing."""
    _build_our_losses_strictly(our_losses)
    _build_our_samplers_strictly(our_samplers)
    freeze_in_training()
    introduce_samplers()
    validate_on_embeddings(our_postprocessors)


def _build_our_losses_strictly(our_losses: Mapping[str, Any]) -> None:
    """The host drops arguments of a criterion that its constructor does not name, so a typo in YAML trains another
    loss without a word; and it takes any ``miner`` for one of its own. Our losses are built here instead.
    """
    host_get_criterion = host_losses.get_criterion
    if getattr(host_get_criterion, "_from_oml_vit_ext", False):
        return

    def get_criterion(name: str, **kwargs: Any) -> nn.Module:
        if name not in our_losses or host_losses.LOSSES_REGISTRY.get(name) is not our_losses[name]:
            return host_get_criterion(name, **kwargs)
        return our_losses[name](**_accepted("criterion", name, our_losses[name], kwargs))

    get_criterion._from_oml_vit_ext = True  # type: ignore[attr-defined]
    host_losses.get_criterion = get_criterion
    logger.info("open-metric-learning: wrong arguments of %s raise an error", ", ".join(our_losses))


def _build_our_samplers_strictly(our_samplers: Mapping[str, Any]) -> None:
    """The host drops wrong arguments of samplers as it does those of criteria."""
    host_get_sampler = host_samplers.get_sampler
    if getattr(host_get_sampler, "_from_oml_vit_ext", False):
        return

    def get_sampler(name: str, **kwargs: Any) -> Any:
        if name in our_samplers and host_samplers.SAMPLERS_REGISTRY.get(name) is our_samplers[name]:
            kwargs = _accepted("sampler", name, our_samplers[name], kwargs)
        return host_get_sampler(name, **kwargs)

    get_sampler._from_oml_vit_ext = True  # type: ignore[attr-defined]
    host_samplers.get_sampler = get_sampler
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
