"""Files of arrays, ``.npy`` and ``.npz``, whose announced sizes are compared with the file before memory is taken."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from oml_vit_ext.common.files import replaced


def write_array(array: NDArray[Any], path: Path) -> None:
    """Write a ``.npy`` file.

    Raises:
        OSError: It could not be written as a whole. numpy itself keeps silent where its last bytes find no room.
    """
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    try:
        with path.open("rb") as file:
            _read_header(file, path.stat().st_size)
    except ValueError as error:
        raise OSError(f"{str(path)!r} could not be written as a whole ({error}): is the disk full?") from error


def read_array(path: Path, *, mmap: bool = False) -> NDArray[Any]:
    """The array in a ``.npy`` file, in memory or left on disk.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no array, announces another size than it has, or holds objects.
    """
    try:
        with path.open("rb") as file:
            _read_header(file, path.stat().st_size)
        found: NDArray[Any] = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a broken header can fail in any way
        raise ValueError(f"{str(path)!r} cannot be read as an array: {error}.") from error
    return found


def write_arrays(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Replace an ``.npz`` file, not compressed.

    Raises:
        OSError: It could not be written as a whole; the old file stays.
    """
    with replaced(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """These arrays of an ``.npz`` file that is not compressed: it takes no more memory than the file has bytes.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such file, lacks an array, announces another size than it has, or holds objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [_member(archive, f"{name}.npy", path.stat().st_size) for name in names]
    except OSError:
        raise
    except Exception as error:  # a broken archive can fail in any way
        raise ValueError(f"{str(path)!r} cannot be read as a file of arrays: {error}.") from error


def _member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> NDArray[Any]:
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > most_bytes:
        raise ValueError(f"{name} is compressed or longer than the file")
    content = archive.read(entry)
    file = io.BytesIO(content)
    shape, is_fortran, dtype = _read_header(file, len(content))
    flat = np.frombuffer(content, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if is_fortran else "C").copy()


def _read_header(file: BinaryIO, n_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that a ``.npy`` announces; ``n_bytes`` is how long it is as a whole."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"the version of its format is {version}, expected (1, 0) or (2, 0)")
    shape, is_fortran, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds objects, expected numbers or texts")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or expected != n_bytes:
        raise ValueError(f"it has {n_bytes} bytes, expected {expected} for {dtype} of shape {shape}")
    return shape, is_fortran, dtype
