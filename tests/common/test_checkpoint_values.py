"""What Lightning keeps beside the tensors comes back, and nothing of it runs."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from oml_vit_ext.common.checkpoint_values import filled, plain_values

VALUES: dict[str, Any] = {
    "scalars": {"best": np.float64(0.5), "n": np.int32(-3), "is": np.bool_(True)},
    "arrays": [np.arange(6).reshape(2, 3), np.asfortranarray(np.ones((2, 3), np.float32)), np.array(["a", "bc"])],
    "empty": np.zeros((0, 4)),
    "types": {"dtype": np.dtype("float32"), "pair": (np.dtype("int64"), 3)},
    "dictionaries of other kinds": OrderedDict(a=np.ones(2), b=defaultdict(list, {"c": [np.arange(3)]})),
    "inside tuples": ([np.arange(2)], {"a": (np.float64(1), np.ones(1))}),
    "parsed arguments": argparse.Namespace(lr=0.1, sizes=[np.int64(3)], inner=argparse.Namespace(a=np.ones(2))),
}


def _read(file: Path) -> Any:
    with torch.serialization.safe_globals(plain_values()):
        return filled(torch.load(file, weights_only=True))


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, argparse.Namespace):
        return _same(vars(a), vars(b))
    if isinstance(a, dict):
        return type(a) is type(b) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and bool(a == b)


@pytest.mark.parametrize("name", VALUES)
def test_plain_values_come_back(tmp_path: Path, name: str):
    torch.save({"value": VALUES[name], "w": torch.ones(2)}, tmp_path / "x.ckpt")
    assert _same(_read(tmp_path / "x.ckpt")["value"], VALUES[name])


def test_configs_of_omegaconf_come_back(tmp_path: Path):
    omegaconf = pytest.importorskip("omegaconf", reason="needs the extra pipelines")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "sizes": [1, 2], "name": "${lr}", "none": None, "is": True})
    torch.save({"hyper_parameters": config}, tmp_path / "x.ckpt")
    assert _read(tmp_path / "x.ckpt")["hyper_parameters"] == config


def test_a_list_that_holds_itself(tmp_path: Path):
    content: list[Any] = [np.float64(1)]
    content.append(content)
    torch.save(content, tmp_path / "x.ckpt")
    read = _read(tmp_path / "x.ckpt")
    assert read[0] == 1 and read[1] is read


class _Calls:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


_DTYPE = np.dtype("float64")


@pytest.mark.parametrize(
    "value",
    [
        _Calls(Path.touch, (Path("touched"),)),
        _Calls(np.ndarray, ((10**9,),)),
        _Calls(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)),  # without the flags of objects
        _Calls(*np.zeros(2).__reduce__()[:2], (1, (10**9,), _DTYPE, False, b"few")),
        _Calls(*np.zeros(2).__reduce__()[:2]),
        _Calls(np.zeros(1)[0].__reduce__()[0], (_DTYPE, b"few")),
        _Calls(np.load, ("x.npy",)),
        _Calls(getattr, ("", "join")),
    ],
)
def test_nothing_else_does(tmp_path: Path, value: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": value}, "x.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        _read(Path("x.ckpt"))
    assert not Path("touched").exists()
