"""Repair of torch's loaders: where a loading process was ended from outside, the error says so.

Images come from a loading process through a socket of its own. When the process is killed, by the system where memory
is short or by a person, the one that waits may see the broken socket before it sees that the process is gone; torch
then passes a bare ``ConnectionResetError`` or ``EOFError`` on, which names nothing that a user knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

from wrapt import register_post_import_hook

from oml_vit_ext.oml_patches.replacing import replace

_SECONDS = 2.0
"""A process that was killed is gone long before that."""


def name_dead_workers() -> None:
    """Apply the repair when torch's loaders are imported."""
    register_post_import_hook(name_in_errors, "torch.utils.data.dataloader")


def name_in_errors(dataloader: ModuleType) -> None:
    """Replace the function of the loader with several processes that takes what one of them has sent."""

    def wrap(try_get_data: Callable[..., Any]) -> Callable[..., Any]:
        def try_get_data_or_name_the_dead(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return try_get_data(self, *args, **kwargs)
            except (ConnectionError, EOFError, FileNotFoundError) as error:
                # Not an error of a data set: such a one arrives as a result and is raised elsewhere.
                dead = _dead(self._workers)
                if not dead:
                    raise
                pids = ", ".join(str(worker.pid) for worker in dead)
                raise RuntimeError(f"DataLoader worker (pid(s) {pids}) exited unexpectedly") from error

        return try_get_data_or_name_the_dead

    iterator = getattr(dataloader, "_MultiProcessingDataLoaderIter", None)
    if iterator is not None:
        replace(iterator, "_try_get_data", wrap, "a loading process that was killed is named in the error")


def _dead(workers: Sequence[Any]) -> list[Any]:
    """Those that have ended, or end within moments."""
    ending = wait([worker.sentinel for worker in workers], timeout=_SECONDS)
    for worker in workers:
        if worker.sentinel in ending:
            worker.join(_SECONDS)  # the system closes its files a moment before it is gone
    return [worker for worker in workers if not worker.is_alive()]
