"""Pickle files of data sets, read without running anything that is in them."""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import NDArray

from oml_vit_ext.common.written_out import check_written_out

# Booleans, integers, floats, texts of a fixed length, objects: what arrays of ids, boxes and names are made of.
_PLAIN_DTYPE = re.compile(r"[|<>=]?(?:[biuf]\d{1,2}|[SU][1-9]\d{0,8}|O\d?)")


def read_pickle(path: str | Path) -> Any:
    """What a pickle of dicts, lists, texts, numbers and numpy arrays holds.

    Python's own ``pickle.load`` runs whatever a file asks for. Here a file may ask for numpy arrays, numbers and types
    and for nothing else, and it takes no more memory than its length allows. Files of Python 2 are read as well.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file asks for something else, is cut short, or is no pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        content = _PlainUnpickler(path.read_bytes()).load()
        check_written_out(content)
        return content
    except _Refused as error:
        raise ValueError(
            f"{path} asks for {error}, expected nothing but dicts, lists, texts, numbers and numpy arrays. "
            f"It may have been tampered with; it was not loaded."
        ) from None
    except Exception as error:  # a broken pickle can fail in any way
        raise ValueError(f"{path} cannot be read as a pickle file ({type(error).__name__}: {error}).") from error


class _Refused(pickle.UnpicklingError):
    pass


class _Name:
    """A name that a file may ask for: stands for a class or function of numpy, and does its harmless part."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


class _Unfilled:
    """A numpy type or array between REDUCE, which creates it, and BUILD, which brings its content."""

    __slots__ = ("fill", "value")

    def __init__(self, fill: Callable[[Any], Any]) -> None:
        self.fill = fill
        self.value: Any = None


class _Memo(dict[int, Any]):
    """What the file refers back to: of types and arrays their content, not the unfilled object that was noted down."""

    def __getitem__(self, number: int) -> Any:
        found = super().__getitem__(number)
        if not isinstance(found, _Unfilled):
            return found
        if found.value is None:
            raise _Refused("an array that holds itself")
        return found.value


class _PlainUnpickler(pickle._Unpickler):
    """Python's unpickler in Python, whose every operation can be replaced.

    The one in C calls ``__setstate__`` of, or sets attributes on, whatever object a file names, and reserves as much
    memory as a file of six bytes asks for. Here no operation creates, calls or fills anything but what stands below.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def __init__(self, content: bytes) -> None:
        # Reading from memory returns what is there, however much the file announces.
        super().__init__(io.BytesIO(content), encoding="latin1")
        self.memo = _Memo()
        self.unfilled = 0

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"
        if asked not in _NAMES:
            raise _Refused(f"{module}.{name}")
        return _NAMES[asked]

    def load(self) -> Any:
        content = super().load()
        if self.unfilled or isinstance(content, _Name):
            raise _Refused("an array without content")
        return content

    def load_reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack[-1]
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _Refused(f"a call of {_told(name)}")
        self.stack[-1] = name.make(*arguments)
        self.unfilled += isinstance(self.stack[-1], _Unfilled)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Unfilled) or target.value is not None:
            raise _Refused(f"a change of {_told(target)}")
        self.stack[-1] = target.value = target.fill(state)
        self.unfilled -= 1

    def load_setitem(self) -> None:
        self._refuse_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def load_setitems(self) -> None:
        self._refuse_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]

    def load_dict(self) -> None:
        self._refuse_keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]

    def _refuse_keys(self, keys: list[Any]) -> None:
        """To look a tuple up takes as long as it is when its parts are written out."""
        for key in keys:
            if isinstance(key, tuple):
                raise _Refused(f"the key {_told(key)} of a dict")

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    def load_refused(self) -> NoReturn:
        raise _Refused("an operation that plain content does not need")

    dispatch.update({pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8})
    dispatch.update({pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems, pickle.DICT[0]: load_dict})
    for _code in (
        *(pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID),
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.DUP),
        *(pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET),
    ):
        dispatch[_code[0]] = load_refused


def _told(value: Any) -> str:
    """In an error, without what stands in it: that may be endless."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f"{value!r:.50}"
    if isinstance(value, tuple) and all(type(part) in (bool, int) for part in value[:32]):
        return f"{value[:32]!r:.50}"
    return f"a {type(value).__name__}"


def _dtype(code: Any, align: Any = False, copy: Any = True) -> _Unfilled:
    """``numpy.dtype``: the state that follows must be the one that numpy itself writes for this type."""
    _check_code(code)
    return _Unfilled(lambda state: dtype_of_parts(code, state))


def _check_code(code: Any) -> str:
    if isinstance(code, bytes):
        code = code.decode("latin1")
    if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
        raise _Refused(f"the numpy type {_told(code)}")
    return code


def dtype_of_parts(code: Any, state: Any) -> np.dtype[Any]:
    """The numpy type of what ``numpy.dtype`` is called with in a pickle, and of the state that follows.

    Raises:
        pickle.UnpicklingError: They are not what numpy writes for a plain type.
    """
    code = _check_code(code)
    plain = isinstance(state, tuple) and all(type(part) in (int, str, type(None)) for part in state)
    if not plain or len(state) != 8 or state[1] not in ("<", ">", "|", "="):
        raise _Refused(f"the numpy type {_told(code)} in another state")
    found: np.dtype[Any] = np.dtype(code).newbyteorder(state[1])
    if found.__reduce__()[2] != state:
        raise _Refused(f"the numpy type {_told(code)} in another state")
    return found


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Unfilled:
    """``numpy.core.multiarray._reconstruct``: the state that follows holds version, shape, type, order and content."""
    if kind is not _NAMES["numpy.ndarray"]:
        raise _Refused("a subclass of numpy.ndarray")
    return _Unfilled(array_of_parts)


def array_of_parts(state: Any) -> NDArray[Any]:
    """The array of its state in a pickle: version, shape, type, order and content.

    Raises:
        pickle.UnpicklingError: They do not belong together.
    """
    if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
        raise _Refused("an array in another state")
    _, shape, dtype, is_fortran, content = state
    return _array(shape, dtype, "F" if is_fortran else "C", content)


def _array(shape: Any, dtype: Any, order: Any, content: Any) -> NDArray[Any]:
    """The content must be exactly what shape and type need: as many bytes, or as many objects."""
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise _Refused(f"an array of the shape {_told(shape)}")
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise _Refused(f"an array of the type {_told(dtype)}")
    n_items = math.prod(shape)
    if dtype.hasobject:
        if not isinstance(content, list) or len(content) != n_items:
            raise _Refused(f"an array of {n_items} objects without as many")
        objects = np.empty(n_items, dtype=object)
        for i, item in enumerate(content):  # one by one: numpy would take lists of one length for a further axis
            objects[i] = item
        return objects.reshape(shape)  # numpy writes objects in C order, whatever the array's own is
    content = _bytes(content)
    if len(content) != n_items * dtype.itemsize:
        raise _Refused(f"an array of {n_items * dtype.itemsize} bytes out of {len(content)}")
    return np.ndarray(shape, dtype, buffer=content, order=order).copy(order="K")


def scalar_of_parts(dtype: Any, content: Any = b"") -> Any:
    """The number of its type and its bytes.

    Raises:
        pickle.UnpicklingError: They do not belong together.
    """
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise _Refused("a numpy scalar of objects")
    return _array((), dtype, "C", content)[()]


def _bytes(content: Any) -> bytes:
    if isinstance(content, str):  # Python 2
        return content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)):
        raise _Refused(f"an array of {type(content).__name__}")
    return bytes(content)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Python 3 writes bytes so in the older pickle protocols."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the encoding {_told(encoding)}")
    return text.encode("latin1")


def _not_called(*_: Any) -> NoReturn:
    raise _Refused("a call of numpy.ndarray")


_NAMES = {
    "numpy.core.multiarray._reconstruct": _Name(_reconstruct),
    "numpy.core.multiarray.scalar": _Name(scalar_of_parts),
    "numpy.core.numeric._frombuffer": _Name(
        lambda content, dtype, shape, order: _array(shape, dtype, order, content)  # protocol 5
    ),
    "numpy.ndarray": _Name(_not_called),
    "numpy.dtype": _Name(_dtype),
    "_codecs.encode": _Name(_encode),
    "__builtin__.bytes": _Name(lambda: b""),
    "builtins.bytes": _Name(lambda: b""),
}
