"""A folder of files that changes as a whole: whoever reads it finds the last complete state.

``manifest.json`` names the files that count, with their sizes and checksums. New files get new names, the manifest is
replaced by one rename, and only then old files go. If the process dies in between, the old state stays valid; orphaned
files are removed by the next commit. A folder without a manifest is a user's: there, only files count as ours whose
names ``.begun.json`` holds, which is written before them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from oml_vit_ext.common.files import UNFINISHED, check_lock, flush, replaced
from oml_vit_ext.common.messages import counted
from oml_vit_ext.retrieval.index.manifest_checks import FILE_NAME, check_manifest

MANIFEST, LOCK = "manifest.json", ".lock"
BEGUN = ".begun.json"  # what an interrupted first save may have left
# What an interrupted :func:`commit` leaves of the files that it is given to write, and of the manifest.
_LEFT_OVER = UNFINISHED.format(r"(?:images-[-\d]+|descriptors-[-\d]+|faiss-\d+|manifest|\.begun)")
_UNFINISHED = re.compile(_LEFT_OVER)
_OURS = re.compile(f"{FILE_NAME.pattern}|{_LEFT_OVER}")
FORMAT = 1
_CHUNK = 1 << 22  # bytes
_MOST_BYTES = 1 << 28  # of a manifest; a hundred thousand parts take a tenth
_MOST_READS = 50  # of an index that others keep saving

Writer = Callable[[Path], None]
T = TypeVar("T")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer of an index. Blocks may be nested; the lock goes with the process that holds it.

    Raises:
        RuntimeError: Another process is writing it.
        OSError: The folder cannot be written, or its lock is a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_lock(folder / LOCK)
    lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"The index {str(folder)!r} is being written by another process: wait until it has finished."
        ) from error
    try:
        yield
    finally:
        lock.release()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, once it and the sizes of its files are found to be complete.

    Raises:
        FileNotFoundError: There is no index in the folder, or a file of it is gone.
        ValueError: The manifest or a file is damaged or cut short.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "there is no such folder" if not folder.is_dir() else f"it has no {MANIFEST}"
        raise FileNotFoundError(
            f"{str(folder)!r} is not an index: {what}. Expected a folder that oml-vit-ext index, or save(), wrote."
        )
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{str(path)!r} has {path.stat().st_size} bytes, expected at most {_MOST_BYTES}.")
    try:
        envelope = json.loads(path.read_text())
        content, checksum = envelope["content"], envelope["checksum"]
        found = content["format"]
        is_whole = checksum == _checksum_text(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is damaged or cut short: {type(error).__name__}: {error}.") from error
    if not is_whole:
        raise ValueError(f"{str(path)!r} is damaged: its checksum does not fit its content.")
    if found != FORMAT:
        raise ValueError(f"{str(path)!r} has format {found!r:.80}, expected {FORMAT}: made by another version?")
    try:
        check_manifest(content)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no manifest of an index: {error}") from error
    for name, expected in content["files"].items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"The index {str(folder)!r} lacks its file {name!r}.")
        if file.stat().st_size != expected["size"]:
            raise ValueError(
                f"{str(file)!r} has {counted(file.stat().st_size, 'byte')}, expected {expected['size']}: it is cut "
                f"short or damaged. Make the index again."
            )
    return content


def read_state(folder: Path, read: Callable[[dict[str, Any]], T]) -> T:
    """What ``read`` makes of the manifest and of its files; it begins again where somebody saves in between.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: As ``read`` and :func:`read_manifest`, of a state that stays.
    """
    for attempt in range(1, _MOST_READS + 1):
        before = _text(folder)
        try:
            return read(read_manifest(folder))
        except (OSError, ValueError, RuntimeError):
            if attempt == _MOST_READS or _text(folder) == before:
                raise
    raise AssertionError


def verify_checksums(folder: Path, files: Mapping[str, Any]) -> None:
    """Read files of a manifest and raise a ``ValueError`` for one whose content has changed since it was written."""
    for name, expected in files.items():
        if _checksum_file(folder / name) != expected["checksum"]:
            raise ValueError(f"{str(folder / name)!r} is damaged: its checksum does not fit. Make the index again.")


def check_target(target: Path, folder: Path | None, manifest: Mapping[str, Any] | None) -> None:
    """Make sure that a save to ``target`` replaces nothing of anybody else's.

    Args:
        target: Where an index is to be saved.
        folder: Where it came from or was saved last.
        manifest: What was found or written there.

    Raises:
        FileExistsError: The folder holds another index, or other files.
        RuntimeError: Somebody has written there since.
    """
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{str(target)!r} is a file, expected a folder for an index: choose another name.")
    try:
        present = read_manifest(target)
    except FileNotFoundError:
        if (target / MANIFEST).exists() and not (target / MANIFEST).is_file():
            raise FileExistsError(f"{str(target / MANIFEST)!r} is no file: choose another folder.") from None
        names = {path.name for path in target.iterdir()} if target.is_dir() else set()
        if MANIFEST in names:  # a file of the index is gone
            names = {name for name in names if not FILE_NAME.fullmatch(name)}
        names -= {MANIFEST, LOCK, BEGUN, *_begun(target)}
        others = sorted(name for name in names if not _UNFINISHED.fullmatch(name))
        if others and FILE_NAME.fullmatch(others[0]):
            raise FileExistsError(
                f"The folder {str(target)!r} holds the file {others[0]!r} of an index, but no {MANIFEST}: choose "
                f"another one, or delete what is there."
            ) from None
        if others:
            raise FileExistsError(
                f"The folder {str(target)!r} is no index and holds other files ({others[0]!r}): choose another one."
            ) from None
        return
    if target != folder:
        raise FileExistsError(
            f"The folder {str(target)!r} holds an index of {counted(present['n_images'], 'image')}: load it and add "
            f"to it, or "
            f"choose another folder."
        )
    if present != manifest:
        raise RuntimeError(
            f"The index {str(target)!r} has been written by another process since it was loaded: load it again."
        )


def write_files(folder: Path, new: Mapping[str, Writer]) -> dict[str, Any]:
    """Write files that count from the next :func:`commit` on.

    Args:
        folder: Locked by the caller.
        new: File name -> function that writes it to a given path. No name may be in use.

    Returns:
        Their entries in a manifest's ``files``: size and checksum.
    """
    if not (folder / MANIFEST).is_file():
        with replaced(folder / BEGUN) as unfinished:
            unfinished.write_text(json.dumps(sorted({*new, *_begun(folder)})))
    files = {}
    for name, write in new.items():
        with replaced(folder / name) as unfinished:
            write(unfinished)
            files[name] = {"size": unfinished.stat().st_size, "checksum": _checksum_file(unfinished)}
    return files


def manifest_of(content: Mapping[str, Any], files: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that says ``content``.

    Args:
        content: What it says beside the files.
        files: Entries of the previous manifest that stay, and what :func:`write_files` gave.
    """
    return {"format": FORMAT, **content, "files": dict(files)}


def commit(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make a manifest the state of the folder, which the caller has locked, and remove what no longer counts."""
    is_first = not (folder / MANIFEST).is_file()
    begun = _begun(folder)
    with replaced(folder / MANIFEST) as unfinished:
        unfinished.write_text(_enclosed(manifest))
    flush(folder)
    for stale in folder.iterdir():
        is_ours = stale.name in begun or _UNFINISHED.fullmatch(stale.name) if is_first else _OURS.fullmatch(stale.name)
        if (is_ours or stale.name == BEGUN) and stale.name not in manifest["files"] and stale.is_file():
            with contextlib.suppress(OSError):  # the new state is there; the next commit tries again
                stale.unlink()


def is_committed(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether this is the state of the folder now."""
    return _text(folder) == _enclosed(manifest).encode()


def _enclosed(manifest: Mapping[str, Any]) -> str:
    return json.dumps({"content": manifest, "checksum": _checksum_text(manifest)})


def _begun(folder: Path) -> set[str]:
    """Names of files that an interrupted first save of ours may have left in a folder without a manifest."""
    try:
        names = json.loads((folder / BEGUN).read_text())
    except (OSError, ValueError, RecursionError):
        return set()
    names = names if isinstance(names, list) else []
    return {name for name in names if isinstance(name, str) and FILE_NAME.fullmatch(name)}


def _text(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        # Of a pipe, nothing would ever come.
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MOST_BYTES else b""
    except OSError:
        return b""


def _checksum_file(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _checksum_text(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
