"""What a file of weights is by its content, whatever its name says."""

from __future__ import annotations

import zipfile
from pathlib import Path

_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"
_ONNX = 0x08  # the first field of its protobuf message
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"7z\xbc\xaf", b"BZh", b"Rar!")
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS in the place of the file: git lfs pull fetches it",
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"GGUF": "a GGUF file, as llama.cpp takes it",
    b"\x93NUMPY": "an array of numpy",
}


def is_safetensors(path: Path) -> bool:
    """Whether it begins as safetensors do: with the length of a header in JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size


def is_by_torch(path: Path) -> bool:
    """Whether it begins as files of ``torch.save`` do."""
    with path.open("rb") as file:
        return file.read(4).startswith((_PICKLE, _ZIP))


def what_else(path: Path) -> str | None:
    """What a file is that is neither of torch nor safetensors; ``None`` if it may be one of them.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"<!DOCTYPE html><title>404</title>")
    ...     file.flush()
    ...     what_else(Path(file.name))
    'a web page: download the file itself'
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty"
    for beginning, kind in _OTHERS.items():
        if start.startswith(beginning):
            return kind
    if start.startswith(_COMPRESSED):
        return "compressed: unpack it first"
    if start[0] == _ONNX and path.suffix.lower() == ".onnx":
        return "an ONNX file: its tensors have lost the names of the model, take the file that it was made of"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page: download the file itself"
    if text.startswith((b"{", b"[")):
        return "a text in JSON"
    return _what_archive(path) if start.startswith(_ZIP) else None


def _what_archive(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None  # cut short: torch says so
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith("data/weights/") for name in inside) and "archive_format" in inside:
        return "a program of torch.export: load it with torch.export.load, and save its state_dict with torch.save"
    if "constants.pkl" in inside:
        return (
            "a program of TorchScript: load it with torch.jit.load, if you trust it, and save its state_dict() with "
            "torch.save"
        )
    return None if "data.pkl" in inside else f"a zip archive of {', '.join(names[:3])}: unpack it first"
