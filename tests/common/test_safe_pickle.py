"""Pickles of data sets are read; pickles that ask for more are not run."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import tracemalloc
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
    with pytest.raises(ValueError, match=r"a call of numpy.ndarray"):
        read_pickle(tmp_path / "x.pkl")


def _type(code: str, *state: object) -> bytes:
    """Operations that leave a numpy type of this code and state on the stack."""
    return b"cnumpy\ndtype\n" + _plain((code, 0, 1)) + b"R" + (_plain(state) + b"b" if state else b"")


def _plain(value: object) -> bytes:
    """Operations that leave a plain value on the stack, without a memo that could clash with others."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=2)
    pickler.fast = True
    pickler.dump(value)
    return stream.getvalue()[2:-1]


def _array(state: bytes) -> bytes:
    """Operations that leave an array with this state on the stack."""
    return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _plain((0,)) + b"S'b'\ntR" + state + b"b"


_LITTLE = (3, "<", None, None, None, -1, -1, 0)
_INTEGERS = _type("i8", *_LITTLE)
_OBJECTS = _type("O8", 3, "|", None, None, None, -1, -1, 63)
_RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


def _state(shape: object, dtype: bytes, content: object, version: int = 1) -> bytes:
    return b"(" + _plain(version) + _plain(shape) + dtype + b"\x89" + _plain(content) + b"t"


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        # Objects at addresses of the file's choice: a type of objects whose flags say that it holds none.
        (_array(_state((1,), _type("O8", 3, "|", None, None, None, -1, -1, 0), b"A" * 8)), "'O8' in another state"),
        (_array(_state((1,), _OBJECTS, b"A" * 8)), "an array of 1 objects"),
        (_array(_state((2,), _OBJECTS, [1])), "an array of 2 objects"),
        (_type("i8", 3, "<", None, ("a",), {"a": (1, 0)}, -1, -1, 0), "in another state"),
        (_type("i8", 3, "<", (1, (2,)), None, None, -1, -1, 0), "in another state"),
        (_type("i8", 3, "<", None, None, None, 10**6, -1, 0), "in another state"),
        (_type("i8", 2, "<", None, None, None, -1, -1, 0), "in another state"),
        (_type("i8", 3, "x", None, None, None, -1, -1, 0), "in another state"),
        (_type("U3", 3, "<", None, None, None, 1200, 4, 8), "in another state"),
        # Content that does not fit.
        (_array(_state((3,), _INTEGERS, b"A" * 8)), "24 bytes out of 8"),
        (_array(_state((2**61, 8), _INTEGERS, b"")), r"bytes out of 0"),
        (_array(_state((-1,), _INTEGERS, b"A" * 8)), r"shape \(-1,\)"),
        (_array(_state((True,), _INTEGERS, b"A" * 8)), r"shape \(True,\)"),
        (_array(_state((1,), _INTEGERS, b"A" * 8, version=2)), "an array in another state"),
        (_array(_state((1,), _type("i8"), b"A" * 8)), "an array of the type"),
        (_array(_plain({"a": 1})), "an array in another state"),
        (_INTEGERS[:-1] + b"0" + _type("U999999999", 3, "<", None, None, None, -1, -1, 0), "state"),
        # State for what is no type and no array, or has its state already.
        (_RECONSTRUCT + _plain({"__defaults__": (1,)}) + b"b", "a change of"),
        (_RECONSTRUCT + _plain((None, {"make": 1})) + b"b", "a change of"),
        (b"cnumpy\nndarray\n" + _plain({"x": 1}) + b"b", "a change of"),
        (_INTEGERS + _plain(_LITTLE) + b"b", "a change of"),
        (_array(_state((1,), _INTEGERS, b"A" * 8)) + _plain((1,)) + b"b", "a change of"),
        (_plain([1]) + _plain({"x": 1}) + b"b", "a change of"),
        # Calls of what is no name, and with odd arguments.
        (_plain("text") + b")R", "a call of 'text'"),
        (_RECONSTRUCT + _plain([1]) + b"R", "a call of"),
        (_RECONSTRUCT + _plain((1, 2, 3)) + b"R", "a subclass"),
        (b"cnumpy\ndtype\n" + _plain(([("a", "O")],)) + b"R", "the numpy type"),
        (b"cnumpy.core.multiarray\nscalar\n(" + _OBJECTS + _plain(b"A" * 8) + b"tR", "a numpy scalar of objects"),
        (b"cnumpy.core.multiarray\nscalar\n(" + _INTEGERS + _plain(b"A" * 9) + b"tR", "8 bytes out of 9"),
        (b"c_codecs\nencode\n" + _plain(("a", "rot13")) + b"R", "the encoding"),
        # Arrays that are never filled, hold themselves, or stand in two places before they are filled.
        (_array(b"0")[:-2], "an array without content"),
        (b"]" + _array(b"0")[:-2] + b"a", "an array without content"),
        (_array(b"q\x05(K\x01(K\x01t" + _OBJECTS + b"\x89]h\x05at"), "an array that holds itself"),
        (_array(b"2"), "an operation"),
        # Objects of classes.
        (b"(inumpy\nndarray\n", "an operation"),
        (b"cnumpy\nndarray\n)\x81", "an operation"),
        (b"\x82\x01", "an operation"),
        (b"Px\n", "an operation"),
    ],
)
def test_content_that_numpy_would_not_write_is_refused(tmp_path: Path, operations: bytes, message: str):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + operations + b".")
    with pytest.raises(ValueError, match=f"asks for .*{message}"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "operations",
    [
        b"Nr\xff\xff\xff\x7f",  # notes None down as number 2 147 483 647
        b"\x8e" + struct.pack("<Q", 2**40),  # bytes
        b"\x96" + struct.pack("<Q", 2**40),  # a bytearray
        b"\x8d" + struct.pack("<Q", 2**40),  # a text
        b"\x95" + struct.pack("<Q", 2**40),  # a frame
        _array(_state((10**12,), _type("i8", *_LITTLE), b"")),
    ],
    ids=["memo", "bytes", "bytearray", "text", "frame", "array"],
)
def test_a_short_file_does_not_take_much_memory(tmp_path: Path, operations: bytes):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x05" + operations + b".")
    tracemalloc.start()
    with contextlib.suppress(ValueError):
        read_pickle(tmp_path / "x.pkl")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"", b"}b", "a change of a list"),
        (b"", b")R", "a call of a list"),
        (b"cnumpy\ndtype\n", b"\x85R", "the numpy type a list"),
        (b"}", b"\x85K\x01s", "the key a tuple of a dict"),
        (b"}(", b"\x85K\x01u", "the key a tuple of a dict"),
        (b"(", b"\x85K\x01d", "the key a tuple of a dict"),
        (b"\x8f(", b"\x90", "an operation"),
        (b"", b"", "stand in each other so often"),
        (_array(b"(K\x01(K\x02t" + _OBJECTS + b"\x89](K\x00")[:-1], b"etb", "stand in each other so often"),
        (b"]q\x60", b"ah\x60a", "a part of it is inside of itself"),
    ],
)
def test_parts_that_stand_in_each_other_are_not_written_out(tmp_path: Path, before: bytes, after: bytes, message: str):
    """A file of 200 bytes could keep the reader busy for years: with an error's text, or with looking up a key."""
    lists = b"]q\x00K\x01a0" + b"".join(
        b"]q" + bytes([n]) + b"h" + bytes([n - 1]) + b"ah" + bytes([n - 1]) + b"a0" for n in range(1, 41)
    )
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + lists + before + b"h\x28" + after + b".")
    with pytest.raises(ValueError, match=message) as told:
        read_pickle(tmp_path / "x.pkl")
    assert str(tmp_path / "x.pkl") in str(told.value) and len(str(told.value)) < 500


def test_a_file_does_not_change_the_reader(tmp_path: Path):
    """What a file did to the reader's own functions would hold for every later file of the process."""
    (tmp_path / "harm.pkl").write_bytes(b"\x80\x02" + _RECONSTRUCT + _plain({"harm": 1}) + b"b.")
    with pytest.raises(ValueError, match="a change of"):
        read_pickle(tmp_path / "harm.pkl")
    test_plain_content_comes_back(tmp_path, protocol=2)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_one_array_in_two_places_stays_one(tmp_path: Path, protocol: int):
    array = np.arange(4).reshape(2, 2)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([array, {"again": array}], protocol=protocol))
    first, second = read_pickle(tmp_path / "x.pkl")
    assert first is second["again"] and np.array_equal(first, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_lists_come_back(tmp_path: Path, protocol: int, order: str):
    array = np.empty((2, 2), dtype=object, order=order)
    array[:] = [[None, None], [None, None]]
    array[0, 0], array[0, 1], array[1, 0] = [1, 2], [3, 4], {"a": np.ones(3)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
    read = read_pickle(tmp_path / "x.pkl")
    assert read.shape == (2, 2) and read[0].tolist() == [[1, 2], [3, 4]] and read[1, 1] is None
    assert read[1, 0]["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_official_ground_truth_reads_as_pickle_reads_it(name: str):
    folder = os.environ.get("OML_VIT_EXT_DATA")
    if folder is None:
        pytest.skip("OML_VIT_EXT_DATA does not name a folder with data/revisited")
    (file,) = (Path(folder) / "data/revisited").rglob(f"gnd_{name}.pkl")
    read, expected = read_pickle(file), pickle.loads(file.read_bytes(), encoding="latin1")
    assert read["imlist"] == expected["imlist"] and read["qimlist"] == expected["qimlist"]
    for ours, theirs in zip(read["gnd"], expected["gnd"], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert type(ours[key]) is type(value)
            np.testing.assert_array_equal(ours[key], value)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(CONTENT)[:-20]])
def test_broken_files_are_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.pkl cannot be read as a pickle file"):
        read_pickle(tmp_path / "x.pkl")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"x.pkl is missing"):
        read_pickle(tmp_path / "x.pkl")
