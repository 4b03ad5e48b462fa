"""faiss in processes that were forked from one that has searched.

A fork takes over the memory, but of the threads only the one that forks: a child would wait for ever for faiss's own
threads, or for a lock that another thread held at that moment.
"""

from __future__ import annotations

import os
import threading

import faiss


def lock_across_forks() -> threading.RLock:
    """A lock that nobody holds in a child: a fork waits for the thread that has it, and so finds what it does done."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


def search_in_one_thread_after_forks() -> None:
    """Have faiss start no threads in children: it would wait for those that it had in the parent."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
