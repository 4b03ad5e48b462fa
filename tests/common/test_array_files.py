"""Files of arrays: whole or an error, and never more memory than the file has bytes."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers.limits import file_size_limit
from oml_vit_ext.common.array_files import read_array, read_arrays, write_array, write_arrays


def _header(shape: str, descr: str = "'<f4'", version: tuple[int, int] = (1, 0)) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    "array", [np.arange(12.0).reshape(3, 4), np.zeros((0, 4), np.float32), np.asfortranarray(np.eye(3))]
)
def test_arrays_come_back(tmp_path: Path, array, mmap: bool) -> None:
    write_array(array, tmp_path / "x.npy")
    back = read_array(tmp_path / "x.npy", mmap=mmap)
    assert back.dtype == array.dtype and isinstance(back, np.memmap) == mmap
    np.testing.assert_array_equal(back, array)


def test_several_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"name": np.array("abc"), "pairs": np.arange(6).reshape(3, 2), "turned": np.arange(6).reshape(3, 2).T}
    write_arrays(arrays, tmp_path / "x.npz")
    for given, back in zip(arrays.values(), read_arrays(tmp_path / "x.npz", tuple(arrays)), strict=True):
        np.testing.assert_array_equal(back, given)
        assert back.dtype == given.dtype and back.flags.writeable


@pytest.mark.parametrize("n_bytes", [30_000, 32_768, 36_800])
def test_a_file_that_finds_no_room_is_an_error(tmp_path: Path, n_bytes: int) -> None:
    """numpy drops the error of its last buffer, of less than 4096 bytes."""
    with file_size_limit(n_bytes), pytest.raises(OSError):
        write_array(np.ones((96, 96), np.float32), tmp_path / "x.npy")


@pytest.mark.parametrize(
    "content",
    [
        _header("(10000000000, 128)") + bytes(64),
        _header("(4,)") + bytes(15),
        _header("(4,)") + bytes(17),
        _header("(-4,)"),
        _header("(-4, -1)") + bytes(16),
        _header("(1,)", "'|O'") + bytes(8),
        _header("(1,)", "'<f4'", (9, 0)) + bytes(4),
        _header("(1, ") + bytes(4),
        b"\x93NUMPY",
        b"",
        b"text",
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_what_a_file_announces_must_be_there(tmp_path: Path, content: bytes, mmap: bool) -> None:
    (tmp_path / "bad.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.npy' cannot be read"):
        read_array(tmp_path / "bad.npy", mmap=mmap)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(ValueError, match=r"bad.npz' cannot be read"):
        read_arrays(tmp_path / "bad.npz", ("x",))


def test_an_archive_that_grows_in_memory_is_refused(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, np.zeros(1_000_000))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", whole.getvalue())
    with pytest.raises(ValueError, match=r"bomb.npz' cannot be read"):
        read_arrays(tmp_path / "bomb.npz", ("x",))
    with pytest.raises(ValueError, match=r"bomb.npz' cannot be read"):
        read_arrays(tmp_path / "bomb.npz", ("y",))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_array(tmp_path / "x.npy")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "x.npz", ("x",))
