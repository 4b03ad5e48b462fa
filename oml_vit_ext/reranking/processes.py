"""Work shared by all processes of ``torch.distributed``; alone, everything is this process's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather(local: T) -> list[T]:
    """Every process's object, in rank order."""
    _, world = rank_and_world()
    if world == 1:
        return [local]
    received: list[T | None] = [None] * world
    dist.all_gather_object(received, local)
    return received  # type: ignore[return-value]


def run_share(work: Callable[[], T]) -> list[T]:
    """Every process's result of ``work``. If it fails in one of them, all of them raise: none waits for ever.

    Raises:
        RuntimeError: It failed in another process. An own error is raised as it is.
    """
    try:
        result, error = work(), None
    except Exception as caught:
        result, error = None, caught
    outcomes = gather((result, None if error is None else f"{type(error).__name__}: {error}"))
    if error is not None:
        raise error
    for rank, (_, message) in enumerate(outcomes):
        if message is not None:
            raise RuntimeError(f"Process {rank} of {len(outcomes)} failed: {message}")
    return [result for result, _ in outcomes]  # type: ignore[misc]
