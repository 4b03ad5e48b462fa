"""Several processes: the batch of all, seen from one of them, and work that they share.

Every process computes the loss of the whole batch; DistributedDataParallel then averages the processes' gradients over
their number W. The average equals the gradient of one process on the concatenated batch when each process contributes
W times the gradient of its own rows. So the others' rows arrive as constants, and no gradient has to travel back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class Batch(NamedTuple):
    """All processes' rows in rank order; ``features[start:stop]`` are this process's own and carry gradients."""

    features: Tensor  # (N, D)
    labels: Tensor  # (N,)
    start: int
    stop: int
    sizes: list[int]  # every process's number of rows


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and how many there are: (0, 1) without ``torch.distributed``."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather_rows(local: Tensor, sizes: list[int]) -> list[Tensor]:
    """Each process's rows of a tensor (B_rank, ...), without gradients; ``sizes`` are all the B_rank."""
    # Collectives want equal shapes: pad to the longest, cut after.
    padded = local.new_zeros((max(sizes), *local.shape[1:]))
    padded[: len(local)] = local.detach()
    received = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(received, padded)
    return [rows[:size] for rows, size in zip(received, sizes, strict=True)]


def gather_batch(features: Tensor, labels: Tensor, across_ranks: bool = True) -> Batch:
    """The batch of all processes, in which this process's rows carry gradients.

    Args:
        features: (B, D) this process's rows; B may differ between processes.
        labels: (B,) on the same device.
        across_ranks: False keeps to this process, e.g. in evaluation, which a single process may do alone.

    Returns:
        N = sum of the B rows with their labels, and where this process's own are. Own gradients are multiplied by the
        number of processes, which DistributedDataParallel divides by.
    """
    rank, world = rank_and_world()
    if world == 1 or not across_ranks:
        return Batch(features, labels, 0, len(features), [len(features)])
    sizes = gather_sizes(len(features), features.device)
    rows = gather_rows(features, sizes)
    rows[rank] = _ScaleGradient.apply(features, float(world))
    start = sum(sizes[:rank])
    return Batch(torch.cat(rows), torch.cat(gather_rows(labels, sizes)), start, start + sizes[rank], sizes)


def gather_constants(local: Tensor, batch: Batch) -> Tensor:
    """All processes' rows of another tensor (B, ...) that belongs to the rows of ``batch``, without gradients."""
    return torch.cat(gather_rows(local, batch.sizes)) if len(batch.sizes) > 1 else local.detach()


def gather_sizes(n_local: int, device: torch.device) -> list[int]:
    """Every process's number of rows. Python must know them to allocate: the one wait of a step on several devices."""
    mine = torch.tensor([n_local], device=device)
    received = [torch.empty_like(mine) for _ in range(rank_and_world()[1])]
    dist.all_gather(received, mine)
    sizes: list[int] = torch.cat(received).tolist()
    return sizes


def sum_over_ranks(values: Tensor) -> Tensor:
    """Adds up a tensor over all processes."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(values)
    return values


class _ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        return grad_output * ctx.factor, None


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
