"""A loading process that was killed is named, however torch notices; other errors stay what they are."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from torch.utils.data import dataloader

from oml_vit_ext.oml_patches import dead_workers
from oml_vit_ext.oml_patches.dead_workers import name_dead_workers, name_in_errors


@pytest.fixture()
def worker() -> Iterator[Any]:
    """Not one of torch's: the signal of its end would raise an error anywhere in this process."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    yield process
    process.kill()
    process.join()


def broken_off(worker: Any, error: Exception, *, killed: bool) -> Any:
    """A loader with one process, from which nothing comes but ``error``."""

    class Loader:
        _workers = (worker,)

        def _try_get_data(self, timeout: float = 1.0) -> Any:
            if killed:  # this moment: it is not gone yet when the error is looked at
                os.kill(worker.pid, signal.SIGKILL)
            raise error

    name_in_errors(cast(ModuleType, SimpleNamespace(_MultiProcessingDataLoaderIter=Loader)))
    return Loader()


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), FileNotFoundError(2, "socket")])
def test_a_killed_process_is_named(worker: Any, error: Exception):
    loader = broken_off(worker, error, killed=True)
    with pytest.raises(
        RuntimeError, match=rf"DataLoader worker \(pid\(s\) {worker.pid}\) exited unexpectedly"
    ) as raised:
        loader._try_get_data(timeout=5.0)
    assert raised.value.__cause__ is error


def test_with_all_processes_alive_the_error_stays(worker: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dead_workers, "_SECONDS", 0.01)
    loader = broken_off(worker, ConnectionResetError(104, "of somebody else"), killed=False)
    with pytest.raises(ConnectionResetError, match="of somebody else"):
        loader._try_get_data()


def test_torch_has_the_function_that_is_replaced():
    name_dead_workers()
    function = dataloader._MultiProcessingDataLoaderIter._try_get_data
    assert function.__name__ == "_try_get_data"
    assert function.__module__ == "torch.utils.data.dataloader"
    assert function.__wrapped__.__code__ is not function.__code__


def test_without_it_nothing_is_replaced():
    name_in_errors(cast(ModuleType, SimpleNamespace()))
