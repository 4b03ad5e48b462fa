"""A process that is forked from one that has searched can search."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from helpers.random_index import random_index, random_rows
from helpers.scripts import _SERVER
from oml_vit_ext.retrieval import SearchIndex
from oml_vit_ext.retrieval.forks import lock_across_forks
from oml_vit_ext.retrieval.index import kept_faiss

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
WAIT_S = 60
QUERIES = random_rows(np.arange(30))


def in_a_fork(work: Callable[[], object]) -> bool:
    """Whether ``work`` ends well in a child that is forked now."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(WAIT_S)
    child.kill()
    child.join()
    return child.exitcode == 0


def search_here_and_in_children(folder: Path) -> None:
    faiss.omp_set_num_threads(2)  # such threads are missing in a child
    indexes = [random_index(folder, factory, 600) for factory in ("Flat", "HNSW8", "IVF8,Flat")]
    found = [index.search(QUERIES, 5) for index in indexes]
    indexes[0].save(folder / "index")
    mapped = SearchIndex.load(folder / "index", mmap=True)

    def same() -> None:
        assert [index.search(QUERIES, 5) for index in indexes] == found
        assert mapped.search(QUERIES, 5) == found[0]

    assert in_a_fork(same)
    same()
    child = SearchIndex.load(folder / "index")
    assert in_a_fork(lambda: child.save())
    with pytest.raises(RuntimeError, match="written by another process since it was loaded"):
        child.save()  # the other one was faster


def test_an_index_that_was_searched_with_threads_is_searched_in_children(tmp_path: Path):
    process = _SERVER.Process(target=search_here_and_in_children, args=(tmp_path,))
    process.start()
    process.join(4 * WAIT_S)
    process.kill()
    assert process.exitcode == 0


def test_a_fork_finds_what_another_thread_was_doing_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index = random_index(tmp_path, "HNSW8", 40)
    begun, build = threading.Event(), kept_faiss.build_index

    def slowly(*args, **settings):
        begun.set()
        time.sleep(0.3)
        return build(*args, **settings)

    monkeypatch.setattr(kept_faiss, "build_index", slowly)
    searching = threading.Thread(target=lambda: index.search(QUERIES[:1]))
    searching.start()
    begun.wait()
    monkeypatch.setattr(kept_faiss, "build_index", lambda *_, **__: os._exit(1))  # the child must not need it
    assert in_a_fork(lambda: index.search(QUERIES[:1]))
    searching.join()


def test_the_lock_is_free_on_both_sides():
    lock = lock_across_forks()

    def take() -> None:
        assert lock.acquire(timeout=5)

    assert in_a_fork(take)
    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
