"""One training at a time in a folder: a second one would take the first one's ``last.ckpt`` for its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# Open folders. A forked loader process lets go of them: it may outlive a training that is killed.
_held: list[int] = []


def _let_go() -> None:
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only training that writes its checkpoints here. The lock is on the folder itself and leaves no file.

    Where the system has no such locks (Windows, some file systems), nothing is checked.

    Raises:
        RuntimeError: Another training is running there.
    """
    handle = _open(folder)
    try:
        if handle is not None:
            _lock(handle, folder)
        yield
    finally:
        if handle in _held:
            _held.remove(handle)
            os.close(handle)


def _open(folder: Path) -> int | None:
    try:
        import fcntl  # noqa: F401

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # what cannot be written is told when a checkpoint is
        return None
    _held.append(handle)
    return handle


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RuntimeError(
            f"Another training is writing its checkpoints to {str(folder)!r}: wait until it has ended, or choose "
            f"another folder (hydra.run.dir)."
        ) from error
    except OSError:
        return
