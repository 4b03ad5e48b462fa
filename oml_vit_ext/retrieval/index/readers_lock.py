"""Many threads read, or one changes what they read; and one may keep it from changing while the others read on."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LONGEST_WAIT_S = 60.0  # of a fork for a change: making an approximate index may take that long
_LOCKS: weakref.WeakSet[ReadersLock] = weakref.WeakSet()


class ReadersLock:
    """Three ways in, each for a block; a thread inside of one may enter again, but not change what it reads.

    A change that waits lets no more readers in. Copies and pickles have a lock of their own; in a forked process nobody
    is inside.
    """

    def __init__(self) -> None:
        self._open()
        _LOCKS.add(self)

    def _open(self) -> None:
        self._mutex = threading.RLock()  # of whoever changes or keeps
        self._condition = threading.Condition()
        self._readers: dict[int, int] = {}  # thread -> blocks that it is in
        self._changer: int | None = None  # thread that changes, or waits for readers to leave
        self._n_changes = 0  # blocks that it is in

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Nothing changes meanwhile."""
        me = threading.get_ident()
        with self._condition:
            self._condition.wait_for(lambda: self._changer in (None, me) or me in self._readers)
            self._readers[me] = self._readers.get(me, 0) + 1
        try:
            yield
        finally:
            with self._condition:
                self._readers[me] -= 1
                if not self._readers[me]:
                    del self._readers[me]
                    self._condition.notify_all()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile; others read."""
        with self._mutex:
            yield

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else reads or changes anything meanwhile."""
        me = threading.get_ident()
        with self._mutex:
            try:
                with self._condition:
                    self._changer, self._n_changes = me, self._n_changes + 1
                    self._condition.wait_for(lambda: not self._readers.keys() - {me})
                yield
            finally:
                with self._condition:
                    self._n_changes -= 1
                    if not self._n_changes:
                        self._changer = None
                        self._condition.notify_all()

    def __reduce__(self) -> Any:
        return ReadersLock, ()


# Held by a thread that forks: no change is half done meanwhile, so that what they guard is whole in the child.
_taken: list[threading.Condition] = []


def _take_all() -> None:
    me = threading.get_ident()
    for lock in list(_LOCKS):
        lock._condition.acquire()
        _taken.append(lock._condition)
        lock._condition.wait_for(lambda lock=lock: lock._changer in (None, me), _LONGEST_WAIT_S)  # type: ignore[misc]


def _give_back() -> None:
    while _taken:
        _taken.pop().release()


def _open_all() -> None:
    _taken.clear()
    for lock in list(_LOCKS):
        lock._open()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_take_all, after_in_parent=_give_back, after_in_child=_open_all)
