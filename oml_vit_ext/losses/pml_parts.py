"""Builds the parts of pytorch-metric-learning from ``{name, args}``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from pytorch_metric_learning.losses.cross_batch_memory import CrossBatchMemory
from torch import nn

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.losses.pml_references import PUT_RIGHT

_MODULES: dict[str, ModuleType] = {
    "loss": losses,
    "distance": distances,
    "reducer": reducers,
    "miner": miners,
    "regularizer": regularizers,
}

# Arguments that are parts themselves, wherever they appear.
_NESTED = {
    "distance": "distance",
    "reducer": "reducer",
    "embedding_regularizer": "regularizer",
    "weight_regularizer": "regularizer",
}

# Abstract classes, wrappers of other losses, and what does not turn (features, labels) into a scalar.
_NOT_OFFERED = {
    "BaseMetricLossFunction",
    "BaseLossWrapper",
    "GenericPairLoss",
    "EmbeddingRegularizerMixin",
    "WeightRegularizerMixin",
    "CrossBatchMemory",
    "MultipleLosses",
    "SelfSupervisedLoss",
    "ManifoldLoss",
    "VICRegLoss",
    "BaseMiner",
    "EmbeddingsAlreadyPackagedAsTriplets",
    "BaseDistance",
    "BatchedDistance",
    "BaseReducer",
    "DoNothingReducer",
    "MultipleReducers",
    "BaseRegularizer",
}

_ONE_VIEW = "but OML's pipelines give one view of an image and its label"
_REFUSED = {
    "SelfSupervisedLoss": f"which compares two views of each image, {_ONE_VIEW}",
    "VICRegLoss": f"which compares two views of each image, {_ONE_VIEW}",
    "ManifoldLoss": "which takes no labels, but OML's pipelines give an image and its label",
}

_OF_WEIGHTS = {"CenterInvariantRegularizer", "RegularFaceRegularizer", "SparseCentersRegularizer"}


def offered(kind: str) -> dict[str, type[nn.Module]]:
    """Class by name: all parts of a kind (loss, distance, reducer, miner, regularizer) that can be asked for."""
    found = vars(_MODULES[kind]).items()
    classes = {name: part for name, part in found if inspect.isclass(part) and issubclass(part, nn.Module)}
    return {name: PUT_RIGHT.get(name, part) for name, part in classes.items() if name not in _NOT_OFFERED}


def names_with_memory() -> list[str]:
    """Names of the losses that can compare a batch with other embeddings than its own."""
    names: list[str] = CrossBatchMemory.supported_losses()
    return names


def is_weight_regularizer(config: Mapping[str, Any]) -> bool:
    """Whether a regularizer is about class centres rather than embeddings."""
    return config.get("name") in _OF_WEIGHTS


def build(kind: str, config: Mapping[str, Any], more_args: Mapping[str, Any] | None = None) -> nn.Module:
    """One part from its name and arguments, the parts among its arguments included.

    Args:
        kind: loss, distance, reducer, miner or regularizer.
        config: ``{"name": class name, "args": {...}}``; ``args`` may be left out.
        more_args: Further arguments, in the same form.

    Returns:
        The library's module.

    Raises:
        ValueError: Unknown name or argument, with the nearest valid ones, or values that the class refuses.

    >>> build("distance", {"name": "LpDistance", "args": {"p": 1}}).p
    1
    """
    if not isinstance(config, Mapping) or "name" not in config or not set(config) <= {"name", "args"}:
        raise ValueError(f"{kind} is {config!r}, expected the form {{name: ..., args: {{...}}}}.")
    constructors = offered(kind)
    name = config["name"]
    if name in _REFUSED:
        raise ValueError(
            f"{kind} is {name!r}, {_REFUSED[name]}: expected a loss of embeddings and labels, e.g. 'SupConLoss'."
        )
    if name not in constructors:
        raise ValueError(unknown_name(f"pytorch-metric-learning {kind}", name, constructors))
    constructor = constructors[name]
    args = dict(config.get("args") or {}) | dict(more_args or {})
    accepted = accepted_arguments(constructor)
    for argument in args:
        if argument not in accepted:
            raise ValueError(unknown_name(f"argument of {name}:", argument, accepted))
    try:
        module: nn.Module = constructor(**{key: _value(key, value) for key, value in args.items()})
    except (TypeError, AssertionError, KeyError) as error:
        reason = str(error).removeprefix(f"{name}.__init__() ")
        reason = f"missing the argument {reason}" if isinstance(error, KeyError) else reason
        raise ValueError(f"args of {name} is {args!r}, expected what the class accepts: {reason}.") from error
    return module


def accepted_arguments(constructor: type) -> set[str]:
    """Names of all arguments, those included that the constructor passes on to its bases as ``**kwargs``."""
    names: set[str] = set()
    for base in constructor.__mro__:
        if base is nn.Module:
            break
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base).parameters.values())
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names


def _value(argument: str, value: Any) -> Any:
    if argument in _NESTED and isinstance(value, Mapping):
        return build(_NESTED[argument], value)
    if argument == "weights" and isinstance(value, (list, tuple)):
        return torch.tensor(value)  # ClassWeightedReducer indexes it with labels
    return value
