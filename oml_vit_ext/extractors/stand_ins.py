"""What stands for the data in checkpoints that is no tensor, so that nothing of it is run or believed.

Training scripts save numbers of numpy and their configs beside the weights. Whoever wants the weights alone needs none
of it: ``torch.load(weights_only=True)`` gets empty objects in the places of these classes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

_VALUES = (
    *(
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "_codecs.encode",
        "numpy.dtype",
        "numpy.ndarray",
    ),
    *("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "typing.Any"),
    *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool", "object")),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean")),
)
_MAPPINGS = (
    *("collections.defaultdict", "easydict.EasyDict", "yacs.config.CfgNode", "addict.addict.Dict", "munch.Munch"),
    *("mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict"),
    *("pytorch_lightning.utilities.parsing.AttributeDict", "lightning_fabric.utilities.data.AttributeDict"),
)


class Value:
    """Takes whatever a pickle file says of it, and keeps nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Value:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _Mapping:
    """A dictionary of the standard library in the place of somebody's own."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def stand_ins() -> list[tuple[type, str]]:
    """For ``torch.serialization.safe_globals``: what is created, and in the place of what."""
    return [*((Value, name) for name in _VALUES), *((_Mapping, name) for name in _MAPPINGS)]
