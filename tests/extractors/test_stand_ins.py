"""Data beside the weights of a checkpoint are not read, and do not keep the weights from being read."""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from oml_vit_ext.extractors.checkpoints import read_state_dict
from oml_vit_ext.extractors.stand_ins import Value, stand_ins

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3)}


def _config() -> Any:
    nested = {"lr": 1e-3, "sizes": [1, 2.5, None, True], "optimizer": {"name": "adam", "same": "${lr}"}}
    return OmegaConf.create(nested)


BESIDE: dict[str, Any] = {
    "a number of numpy": {"best": np.float64(0.3), "epoch": np.int64(3), "single": np.float32(1)},
    "an array of numpy": {"history": np.arange(3.0), "names": np.array(["a", "b"])},
    "a config of omegaconf": {"hyper_parameters": _config()},
    "a default": {"counts": defaultdict(list, {"a": [1]})},
    "names in the optimizer": {"optimizer": {"exp_avg": {"a.weight": torch.zeros(2)}}},
    "metrics in the optimizer": {"optimizer": {"param_groups": [{"lr": np.float64(0.1)}], "state": {}}},
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_weights_are_read_beside_it(tmp_path: Path, beside: str, key: str):
    torch.save({key: STATE, **BESIDE[beside]}, tmp_path / "x.ckpt")
    assert torch.equal(read_state_dict(tmp_path / "x.ckpt")["a.weight"], STATE["a.weight"])


class EasyDict(dict):
    """As the package of this name has it: a dictionary with attributes."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__.update(values)


def test_a_library_that_is_not_installed_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    library = ModuleType("easydict")
    library.EasyDict = EasyDict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "easydict", library)
    monkeypatch.setattr(EasyDict, "__module__", "easydict")
    torch.save({"model": STATE, "cfg": EasyDict(lr=1, inner=EasyDict(x=[2]))}, tmp_path / "x.pth")
    monkeypatch.delitem(sys.modules, "easydict")
    assert torch.equal(read_state_dict(tmp_path / "x.pth")["a.weight"], STATE["a.weight"])


def test_weights_that_are_arrays_of_numpy_are_told(tmp_path: Path):
    torch.save({name: tensor.numpy() for name, tensor in STATE.items()}, tmp_path / "x.pth")
    with pytest.raises(RuntimeError, match=r"found a\.weight\. Arrays of numpy are not read: save them as tensors\."):
        read_state_dict(tmp_path / "x.pth")


@pytest.mark.parametrize("made", sorted({made for made, _ in stand_ins()}, key=lambda made: made.__name__))
def test_nothing_of_it_is_kept(made: type):
    kept = made("argument", 1)
    if isinstance(kept, Value):
        kept.__setstate__({"attribute": 1})
    assert kept == OrderedDict() or vars(kept) == {}
