"""What is in image files: tells a renamed or copied file from a changed one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_THREADS = 4
_CHUNK = 1 << 20  # bytes


def digests(paths: Sequence[Path]) -> list[str]:
    """BLAKE2b of each file's content in hex; empty for a file that cannot be read."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(_digest, paths))


def stamp(file: Path) -> tuple[int, int]:
    """Bytes and time (ns) by which a change is noticed; of a missing file ``(-1, -1)``.

    The time is that of content or status, whichever is later: a file that takes another's place with its size and its
    time (``cp -p``, ``unzip``) has a status of its own. Where the status alone has changed, the content tells.
    """
    try:
        state = file.stat()
    except OSError:
        return -1, -1
    return state.st_size, max(state.st_mtime_ns, state.st_ctime_ns)


def is_gone(path: Path) -> bool:
    """Whether there is no such file; a file that cannot be reached just now is not gone."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()
