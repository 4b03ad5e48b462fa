"""Files that are replaced as a whole: whoever interrupts never leaves half of one."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

# The temporary name of a file whose name begins as {}, as a regular expression.
UNFINISHED = r"\.{}\.(?:[0-9a-f]{{16}}-)?\d+-\d+\.partial(?:\.\w+)?"
_CUT = 40  # characters of a file's name in it: all in all it may have 255 bytes


@contextlib.contextmanager
def replaced(file: str | Path) -> Iterator[Path]:
    """A temporary path beside ``file``: what the block writes there takes the place of ``file`` when it ends well.

    The content reaches the disk before the name does, so that not even a power cut leaves half a file. If the block
    fails, the temporary file goes and ``file`` stays as it was. A file that is replaced hands its permissions on. Every
    process and thread has a temporary name of its own; its ending is that of ``file``, for writers that go by it.
    Missing folders are made. What processes left here that were killed while they wrote ``file`` goes, if it is certain
    that they are gone.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    here = _here()
    _remove_of_gone_processes(file, here)
    unfinished = file.with_name(f".{file.stem[:_CUT]}.{here}{os.getpid()}-{threading.get_ident()}.partial{file.suffix}")
    try:
        yield unfinished
        flush(unfinished)
        _take_permissions(file, unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def _take_permissions(old: Path, new: Path) -> None:
    """What its owner has closed to others is not opened again by a new version of it."""
    with contextlib.suppress(OSError):  # there is no old one, or the disk knows no permissions
        mode = old.lstat().st_mode
        if stat.S_ISREG(mode):
            new.chmod(stat.S_IMODE(mode))


def remove_leftovers(file: Path) -> None:
    """Remove what killed processes left of :func:`replaced`; only where nobody can be writing ``file`` now."""
    if len(file.stem) > _CUT:
        return  # the temporary name is cut: it may be another file's
    unfinished = re.compile(UNFINISHED.format(re.escape(file.stem)) + "$")
    for path in file.parent.glob(f".{glob.escape(file.stem)}.*.partial*"):
        if unfinished.match(path.name) and path.name.endswith(f".partial{file.suffix}"):
            path.unlink(missing_ok=True)


def _here() -> str:
    """Where the number of a process belongs to it alone: this start of this machine and, in it, of this container.

    Empty where the system does not tell. Other machines may write into the same folder, with the same numbers.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(f"{boot}{numbers}".encode(), digest_size=8).hexdigest() + "-"


def _remove_of_gone_processes(file: Path, here: str) -> None:
    """Remove temporary files of ``file`` (or, where its name is cut, of one like it) whose process ran here."""
    if not here:
        return
    ours = re.compile(rf"{re.escape(f'.{file.stem[:_CUT]}.{here}')}(\d+)-\d+\.partial{re.escape(file.suffix)}")
    with contextlib.suppress(OSError):  # the folder cannot be listed, or not changed: nothing depends on it
        for name in os.listdir(file.parent):
            found = ours.fullmatch(name)
            if found and _is_gone(int(found[1])):
                file.with_name(name).unlink(missing_ok=True)


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_lock(lock: Path) -> None:
    """Raise an ``OSError`` unless a lock may be made or taken here: some versions of filelock empty the file.

    A lock is an empty file of its own: no link to another one, and not what another program keeps under this name.
    """
    try:
        state = lock.lstat()
    except FileNotFoundError:
        return
    is_file = stat.S_ISREG(state.st_mode)
    if stat.S_ISLNK(state.st_mode) or (is_file and state.st_nlink > 1):
        raise OSError(f"{str(lock)!r} is a link, expected a file of its own: delete it.")
    if not is_file or state.st_size:
        raise OSError(f"{str(lock)!r} is no lock of this package, expected an empty file or none: delete or move it.")


def stamp(file: Path) -> tuple[int, int]:
    """Bytes and time of change (ns) of a file, by which a change is noticed; of a missing one ``(-1, -1)``."""
    try:
        state = file.stat()
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def write_frame(frame: pd.DataFrame, file: Path) -> None:
    """Write a dataframe as CSV, without its index."""
    with replaced(file) as unfinished:
        frame.to_csv(unfinished, index=False)


def write_lines(lines: list[str], file: Path) -> None:
    """Write one line each. Without lines there is no file."""
    if not lines:
        file.unlink(missing_ok=True)
        return
    with replaced(file) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")
