"""faiss in processes that were forked from one that has searched.

A fork takes over the memory, but of the threads only the one that forks: a child would wait for ever for faiss's own
threads, or for a lock that another thread held at that moment.
"""

from __future__ import annotations

import os
import threading
import weakref

import faiss

_LONGEST_WAIT_S = 60.0  # a search or the training of an index may take that long


def lock_across_forks() -> threading.RLock:
    """A lock that nobody holds in a child: a fork waits for the thread that has it, and so finds what it does done.

    A fork cannot be told to forget what it waits for, so it knows the lock only for as long as somebody else does, and
    waits for a bounded time: a thread that was ended while it had the lock does not stop the process for ever.
    """
    lock = threading.RLock()
    known, taken = weakref.ref(lock), []

    def take() -> None:
        found = known()
        if found is not None and found.acquire(timeout=_LONGEST_WAIT_S):
            taken.append(found)

    def give_back() -> None:
        if taken:
            taken.pop().release()

    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(before=take, after_in_parent=give_back, after_in_child=give_back)
    return lock


def search_in_one_thread_after_forks() -> None:
    """Have faiss start no threads in children: it would wait for those that it had in the parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
