"""A name that is in no registry is told with the nearest ones: OML raises a bare ``KeyError: 'itr'``.

Likewise a part of a config that has no name; one without ``args`` has none, where OML raises ``KeyError: 'args'``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.oml_patches.replacing import replace

# Module below oml.registry -> function that looks a name up -> registry, what it is a name of.
_LOOKUPS: dict[str, dict[str, tuple[str, str]]] = {
    "models": {
        "get_extractor": ("EXTRACTORS_REGISTRY", "extractor"),
        "get_pairwise_model": ("PAIRWISE_MODELS_REGISTRY", "pairwise model"),
    },
    "losses": {"get_criterion": ("LOSSES_REGISTRY", "criterion")},
    "miners": {"get_miner": ("MINERS_REGISTRY", "miner")},
    "samplers": {"get_sampler": ("SAMPLERS_REGISTRY", "sampler")},
    "transforms": {
        "get_transforms": ("TRANSFORMS_REGISTRY", "transforms"),
        "get_transforms_for_pretrained": ("TRANSFORMS_FOR_PRETRAINED", "weights with transforms"),
    },
    "optimizers": {"get_optimizer": ("OPTIMIZERS_REGISTRY", "optimizer")},
    "schedulers": {"get_scheduler": ("SCHEDULERS_REGISTRY", "scheduler")},
    "postprocessors": {"get_postprocessor": ("POSTPROCESSORS_REGISTRY", "postprocessor")},
    "loggers": {"get_logger": ("LOGGERS_REGISTRY", "logger")},
}


class UnknownNameError(KeyError, ValueError):
    """The ``KeyError`` of a registry, or of a part of a config, in a sentence."""

    __str__ = Exception.__str__  # a KeyError shows its message as a string in quotes


def tell_unknown_names() -> None:
    """Apply the change when OML's registries are imported."""
    for name in _LOOKUPS:
        register_post_import_hook(tell_in, f"oml.registry.{name}")


def tell_in(module: ModuleType) -> None:
    """Have the functions of one of OML's modules say which names there are. Its registries stay what they are."""
    # Not its ``get_..._by_cfg``, all of which call this first: others may have imported those already.
    replace(module, "dictconfig_to_dict", _complete, "a part of a config needs no args")
    for function, (registry, kind) in _LOOKUPS[module.__name__.rsplit(".", 1)[-1]].items():

        def wrap(look_up: Callable[..., Any], registry: str = registry, kind: str = kind) -> Callable[..., Any]:
            parameter = next(iter(inspect.signature(look_up).parameters))

            def checked(*args: Any, **kwargs: Any) -> Any:
                known = getattr(module, registry)
                if args or parameter in kwargs:
                    name = args[0] if args else kwargs[parameter]
                    if name not in known:
                        raise UnknownNameError(unknown_name(kind, name, known))
                return look_up(*args, **kwargs)

            return checked

        replace(module, function, wrap, f"an unknown name of {kind} is told with the nearest ones")


def _complete(to_dict: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    def with_args(cfg: Any) -> dict[str, Any]:
        part = to_dict(cfg) if hasattr(cfg, "keys") else {}
        args = part.get("args") or {}
        if not isinstance(part.get("name"), str) or not isinstance(args, dict):
            raise UnknownNameError(f"A part of the config is {cfg!r:.200}, expected {{name: ..., args: {{...}}}}.")
        return {**part, "args": args}

    return with_args
