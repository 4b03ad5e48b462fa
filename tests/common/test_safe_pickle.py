"""Pickles of data sets are read; pickles that ask for more are not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from oml_vit_ext.common.safe_pickle import read_pickle

CONTENT = {
    "names": ["a", "b"],
    "ids": np.arange(3),
    "boxes": np.array([[1.0, 2.0]], order="F"),
    "number": np.float32(2.5),
    "texts": np.array(["ab", "c"]),
    "mixed": np.array(["x", 1], dtype=object),
    "big_endian": np.arange(4, dtype=">i4"),
    "empty": np.empty((0,)),
    "bytes": b"xyz",
    "none": None,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_content_comes_back(tmp_path: Path, protocol: int):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    read = read_pickle(tmp_path / "x.pkl")
    assert read.keys() == CONTENT.keys()
    for key, value in CONTENT.items():
        np.testing.assert_array_equal(read[key], value)


def test_a_file_of_python_2(tmp_path: Path):
    (tmp_path / "x.pkl").write_bytes(b"(dp0\nS'imlist'\np1\n(lp2\nS'all_souls_000001'\np3\nas.")
    assert read_pickle(tmp_path / "x.pkl") == {"imlist": ["all_souls_000001"]}


class _Runs:
    def __init__(self, function, *args) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "attack",
    [
        _Runs(os.system, "touch harm"),
        _Runs(eval, "open('harm', 'w')"),
        _Runs(getattr, "", "join"),
        _Runs(open, "harm", "w"),
        _Runs(np.load, "harm"),
        _Runs(np.dtype, [("a", "O")]),
        np.ma.array([1]),
        Path("x"),
    ],
    ids=lambda a: type(a).__name__,
)
def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: object):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": attack}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected nothing but dicts.*not loaded"):
        read_pickle(tmp_path / "x.pkl")
    assert not (tmp_path / "harm").exists()


def test_the_real_ndarray_cannot_be_called(tmp_path: Path):
    (tmp_path / "x.pkl").write_bytes(b"cnumpy\nndarray\n(I3\ntR.")
    with pytest.raises(ValueError, match="cannot be read"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(CONTENT)[:-20]])
def test_broken_files_are_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.pkl cannot be read as a pickle file"):
        read_pickle(tmp_path / "x.pkl")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"x.pkl is missing"):
        read_pickle(tmp_path / "x.pkl")
