"""Files that are replaced as a whole: whoever interrupts never leaves half of one."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

# The temporary name of a file whose name begins as {}, as a regular expression.
UNFINISHED = r"\.{}\.\d+-\d+\.partial(?:\.\w+)?"


@contextlib.contextmanager
def replaced(file: str | Path) -> Iterator[Path]:
    """A temporary path beside ``file``: what the block writes there takes the place of ``file`` when it ends well.

    The content reaches the disk before the name does, so that not even a power cut leaves half a file. If the block
    fails, the temporary file goes and ``file`` stays as it was. Every process and thread has a temporary name of its
    own; its ending is that of ``file``, for writers that go by it. Missing folders are made.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Cut: a name has at most 255 bytes.
    unfinished = file.with_name(f".{file.stem[:50]}.{os.getpid()}-{threading.get_ident()}.partial{file.suffix}")
    try:
        yield unfinished
        flush(unfinished)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_leftovers(file: Path) -> None:
    """Remove what killed processes left of :func:`replaced`; only where nobody can be writing ``file`` now."""
    if len(file.stem) > 50:
        return  # the temporary name is cut: it may be another file's
    unfinished = re.compile(UNFINISHED.format(re.escape(file.stem)) + "$")
    for path in file.parent.glob(f".{glob.escape(file.stem)}.*.partial*"):
        if unfinished.match(path.name) and path.name.endswith(f".partial{file.suffix}"):
            path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
