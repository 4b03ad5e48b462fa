"""Pickle files of data sets, read without running anything that is in them."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

# Booleans, integers, floats, fixed-length texts, objects: what arrays of ids, boxes and names are made of.
_PLAIN_DTYPE = re.compile(r"[|<>=]?[biufSUO]\d*")


def read_pickle(path: str | Path) -> Any:
    """What a pickle of dicts, lists, texts, numbers and numpy arrays holds.

    Python's own ``pickle.load`` runs whatever a file asks for. Here a file may ask for numpy arrays, numbers and types
    and for nothing else; files written by Python 2 are read as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file asks for something else, is cut short, or is no pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin1").load()
        except _Refused as error:
            raise ValueError(
                f"{path} asks for {error}, expected nothing but dicts, lists, texts, numbers and numpy arrays. "
                f"It may have been tampered with; it was not loaded."
            ) from None
        except Exception as error:  # a broken pickle can fail in any way
            raise ValueError(f"{path} cannot be read as a pickle file ({type(error).__name__}: {error}).") from error


class _Refused(pickle.UnpicklingError):
    pass


class _PlainUnpickler(pickle.Unpickler):
    """Resolves the few names that numpy's pickles hold to functions of this module, all others to an error."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"
        if asked not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[asked]

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused(f"the outside object {pid!r}")


class _ArrayType:
    """Stands for ``numpy.ndarray`` where a pickle names it, so that a file cannot call the real one."""


def _empty_array(kind: Any, shape: Any, code: Any) -> Any:
    """What ``numpy.core.multiarray._reconstruct`` returns: an empty array that the pickle then fills."""
    if kind is not _ArrayType:
        raise _Refused("a subclass of numpy.ndarray")
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _dtype(code: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    if isinstance(code, bytes):
        code = code.decode("latin1")
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        raise _Refused(f"the numpy type {code!r}")
    found: np.dtype[Any] = np.dtype(code, align=False, copy=True)  # a copy: the pickle sets its byte order
    return found


def _scalar(dtype: Any, value: Any = b"") -> Any:
    if isinstance(value, str):  # Python 2
        value = value.encode("latin1")
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(value, bytes):
        raise _Refused("a numpy scalar of objects")
    return np.frombuffer(value, dtype=dtype, count=1)[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Python 3 writes bytes so in the older pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Empty bytes, in the same protocols."""
    return b""


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
    """Protocol 5 stores arrays so."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise _Refused("an array of objects inside a buffer")
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy()


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy.ndarray": _ArrayType,
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
}
