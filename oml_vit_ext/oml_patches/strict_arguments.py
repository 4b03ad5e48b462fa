"""Wrong arguments of our losses and samplers are errors: OML drops them without a word."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import oml.registry.losses as oml_losses
import oml.registry.samplers as oml_samplers
from torch import nn

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.oml_patches.replacing import replace

# What the training pipeline passes to every criterion and sampler, whether its constructor asks for it or not.
_PASSED_TO_ALL = {"label2category", "labels"}


def build_losses_strictly(our_losses: Mapping[str, Any]) -> None:
    """Have OML's ``get_criterion`` build our losses with the arguments that the config names, or raise.

    OML drops arguments of a criterion that its constructor does not name, so a typo in YAML trains another loss without
    a word; and it takes any ``miner`` for one of its own.
    """

    def wrap(get_criterion: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        def get_ours_strictly(name: str, **kwargs: Any) -> nn.Module:
            if name not in our_losses or oml_losses.LOSSES_REGISTRY.get(name) is not our_losses[name]:
                return get_criterion(name, **kwargs)
            loss: nn.Module = our_losses[name](**_accepted("criterion", name, our_losses[name], kwargs))
            return loss

        return get_ours_strictly

    replace(oml_losses, "get_criterion", wrap, f"wrong arguments of {', '.join(our_losses)} raise an error")


def build_samplers_strictly(our_samplers: Mapping[str, Any]) -> None:
    """Have OML's ``get_sampler`` raise on wrong arguments of our samplers, which it drops as those of criteria."""

    def wrap(get_sampler: Callable[..., Any]) -> Callable[..., Any]:
        def get_ours_strictly(name: str, **kwargs: Any) -> Any:
            if name in our_samplers and oml_samplers.SAMPLERS_REGISTRY.get(name) is our_samplers[name]:
                kwargs = _accepted("sampler", name, our_samplers[name], kwargs)
            return get_sampler(name, **kwargs)

        return get_ours_strictly

    replace(oml_samplers, "get_sampler", wrap, f"wrong arguments of {', '.join(our_samplers)} raise an error")


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
