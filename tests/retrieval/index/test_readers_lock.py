"""Many read or one changes, and one keeps it as it is while the others read on."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oml_vit_ext.retrieval.index.readers_lock import ReadersLock

WAIT_S = 0.1


def gets_in(enter: str, lock: ReadersLock) -> threading.Event:
    """Set when another thread is inside."""
    inside = threading.Event()

    def go() -> None:
        with getattr(lock, enter)():
            inside.set()

    threading.Thread(target=go, daemon=True).start()
    return inside


@pytest.mark.parametrize(
    ("here", "there", "at_once"),
    [
        ("reading", "reading", True),
        ("reading", "keeping", True),
        ("reading", "changing", False),
        ("keeping", "reading", True),
        ("keeping", "keeping", False),
        ("keeping", "changing", False),
        ("changing", "reading", False),
        ("changing", "keeping", False),
        ("changing", "changing", False),
    ],
)
def test_who_gets_in_beside_whom(here: str, there: str, at_once: bool):
    lock = ReadersLock()
    with getattr(lock, here)():
        inside = gets_in(there, lock)
        assert inside.wait(WAIT_S) == at_once
    assert inside.wait(10)


def test_a_thread_may_enter_again():
    lock = ReadersLock()
    with lock.keeping(), lock.changing(), lock.changing(), lock.reading(), lock.keeping():
        assert not gets_in("reading", lock).wait(WAIT_S)
    with lock.reading():
        waiting = gets_in("changing", lock)
        assert not waiting.wait(WAIT_S)
        with lock.reading():  # though a change waits
            pass
    assert waiting.wait(10)


def test_a_change_that_waits_lets_no_more_readers_in():
    lock = ReadersLock()
    with lock.reading():
        change = gets_in("changing", lock)
        assert not change.wait(WAIT_S)
        reader = gets_in("reading", lock)
        assert not reader.wait(WAIT_S)
    assert change.wait(10) and reader.wait(10)


def test_counting_in_threads():
    lock, numbers = ReadersLock(), [0, 0]

    def work(_: int) -> None:
        for _ in range(50):
            with lock.changing():
                numbers[0] += 1
                numbers[1] = numbers[0]
            with lock.reading():
                assert numbers[0] == numbers[1]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert numbers == [400, 400]


def test_an_error_inside_leaves_it_open():
    lock = ReadersLock()
    for enter in (lock.reading, lock.keeping, lock.changing):
        with pytest.raises(KeyboardInterrupt), enter():
            raise KeyboardInterrupt
    assert gets_in("changing", lock).wait(10)


def test_copies_have_a_lock_of_their_own():
    lock = ReadersLock()
    with lock.changing():
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            assert gets_in("changing", other).wait(10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_nobody_is_inside_in_a_child():
    lock, leave = ReadersLock(), threading.Event()

    def read() -> None:
        with lock.reading():
            leave.wait(10)

    reader = threading.Thread(target=read)
    reader.start()
    while not lock._readers:
        pass
    child = os.fork()
    if child == 0:
        with lock.changing():
            os._exit(0)
    _, status = os.waitpid(child, 0)
    leave.set()
    reader.join()
    assert status == 0
    with lock.changing():
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_fork_waits_for_a_change_and_not_for_who_keeps():
    lock, changed, leave = ReadersLock(), threading.Event(), threading.Event()
    state: list[int] = []

    def change() -> None:
        with lock.changing():
            state.append(1)
            changed.set()
            leave.wait(WAIT_S)
            state.append(2)

    def keep() -> None:
        with other.keeping():
            kept.set()
            done.wait(10)

    other, kept, done = ReadersLock(), threading.Event(), threading.Event()
    threads = [threading.Thread(target=change), threading.Thread(target=keep)]
    for thread in threads:
        thread.start()
    assert changed.wait(10) and kept.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(len(state))
    _, status = os.waitpid(child, 0)
    done.set()
    for thread in threads:
        thread.join()
    assert os.waitstatus_to_exitcode(status) == 2
