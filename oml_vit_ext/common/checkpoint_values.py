"""Values beside the tensors of a checkpoint, for ``torch.load(weights_only=True)``: plain data, and nothing that runs.

Lightning keeps what callbacks and ``save_hyperparameters`` give it: numbers and arrays of numpy, parsed arguments,
configs of OmegaConf. numpy's own types are not safe to unpickle, see ``safe_pickle.py``, so they are made here.
"""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict, defaultdict
from typing import Any

from oml_vit_ext.common.safe_pickle import array_of_parts, dtype_of_parts, scalar_of_parts


class _Filled:
    """A type or an array of numpy: stands in its place until all is read."""

    def __init__(self, code: Any = None) -> None:
        self.code = code
        self.value: Any = None

    def __setstate__(self, state: Any) -> None:
        parts = filled(state)
        self.value = array_of_parts(parts) if self.code is None else dtype_of_parts(self.code, parts)


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Filled:
    return _Filled(code)


def _array(kind: Any, shape: Any, code: Any) -> _Filled:
    return _Filled()


def _array_of_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return array_of_parts((1, shape, filled(dtype), order == "F", content))


def _scalar(dtype: Any, content: Any = b"") -> Any:
    return scalar_of_parts(filled(dtype), content)


def _default(factory: Any = None) -> Any:
    """A ``defaultdict`` while it is read: torch fills plain and ordered dictionaries alone."""
    made: Any = OrderedDict()
    made.factory = factory
    return made


def _no_bytes() -> bytes:
    return b""


def _not_called(*_: Any) -> None:
    raise pickle.UnpicklingError("a call of numpy.ndarray")


def plain_values() -> list[Any]:
    """What ``torch.serialization.safe_globals`` may take besides; give what was read to :func:`filled`."""
    found: list[Any] = [argparse.Namespace, (_default, "collections.defaultdict"), (_Filled, f"{__name__}._Filled")]
    for core in ("numpy.core", "numpy._core"):
        found += [(_scalar, f"{core}.multiarray.scalar"), (_array, f"{core}.multiarray._reconstruct")]
        found += [(_array_of_buffer, f"{core}.numeric._frombuffer")]
    found += [(_dtype, "numpy.dtype"), (_not_called, "numpy.ndarray"), (_no_bytes, "builtins.bytes")]
    try:
        from omegaconf import DictConfig, ListConfig, nodes
        from omegaconf.base import ContainerMetadata, Metadata
    except ImportError:
        return found
    kinds = (nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode)
    builtin = [(kind, f"builtins.{kind.__name__}") for kind in (dict, list, int, float, str, bool)]
    return [*found, DictConfig, ListConfig, ContainerMetadata, Metadata, *kinds, *builtin, (Any, "typing.Any")]


def filled(content: Any, _seen: set[int] | None = None) -> Any:
    """The same content with numpy's arrays and types in the places of what stood for them.

    Raises:
        pickle.UnpicklingError: An array without content.
    """
    if isinstance(content, _Filled):
        if content.value is None:
            raise pickle.UnpicklingError("an array or a type of numpy without content")
        return content.value
    seen = set() if _seen is None else _seen
    if type(content) is tuple:
        return tuple(filled(value, seen) for value in content)
    inner: Any = vars(content) if isinstance(content, argparse.Namespace) else content
    if isinstance(inner, (dict, list)) and id(inner) not in seen:  # it may hold itself
        seen.add(id(inner))
        for key in range(len(inner)) if isinstance(inner, list) else list(inner):
            inner[key] = filled(inner[key], seen)
    if type(inner) is OrderedDict and "factory" in vars(inner):
        return defaultdict(vars(inner)["factory"], inner)
    return content
