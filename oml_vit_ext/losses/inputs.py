"""What every loss does first: check the batch, put the embeddings on the unit sphere, gather those of all processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oml_vit_ext.common.distributed import Batch, gather_batch
from oml_vit_ext.common.messages import counted

# Vectors shorter than this have no direction worth following: they are zero vectors.
SHORTEST = 1e-12


def unit_batch(features: Tensor, labels: Tensor | Sequence[int], across_ranks: bool) -> Batch:
    """The checked and normalised batch of all processes.

    Args:
        features: (B, D) embeddings of any length, those of this process.
        labels: (B,) whole numbers.
        across_ranks: False keeps to this process.

    Returns:
        N unit vectors (N, D) in float32 (float64 stays) with their labels (N,), N = B on a single process.

    Raises:
        ValueError: as ``check_batch``.
    """
    features, labels = check_batch(features, labels)
    return gather_batch(unit_vectors(features), labels, across_ranks)


def check_batch(features: Tensor, labels: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
    """A batch as the losses want it: embeddings in float32 or float64, labels in int64 on the same device.

    Args:
        features: (B, D) floating-point embeddings, B at least 1.
        labels: (B,) whole numbers: a tensor on any device, a list or a tuple.

    Returns:
        The embeddings (B, D) in float32 (float64 stays), and the labels (B,).

    Raises:
        ValueError: Wrong shapes or types. On the CPU also for infinite or NaN embeddings; elsewhere that check would
            stall the device at every step, so there the loss becomes NaN, which is what a gradient scaler looks for.
    """
    if (
        not isinstance(features, Tensor)
        or features.ndim != 2
        or not features.is_floating_point()
        or not features.numel()
    ):
        got = f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"features is {got}, expected a floating-point tensor (B, D) with B and D of at least 1.")
    labels = labels if isinstance(labels, Tensor) else _tensor_of(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels is {labels.dtype}, expected whole numbers (an integer tensor or a list of ints).")
    check_pair("features", features, "labels", labels)
    if features.device.type == "cpu":
        n_bad = int((~torch.isfinite(features)).any(dim=1).sum())
        if n_bad:
            raise ValueError(
                f"features is not finite in {n_bad} of {counted(len(features), 'row')}, expected no NaN or infinity."
            )
    if features.dtype != torch.float64:
        features = features.float()
    return features, labels.to(device=features.device, dtype=torch.int64)


def _tensor_of(labels: Sequence[int]) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # by what is wrong with them
        raise ValueError(
            f"labels is {labels!r:.100}, expected a whole number of 64 bits for each row of features."
        ) from error


def check_pair(name: str, embeddings: Tensor | None, labels_name: str, labels: Tensor | None) -> None:
    """Embeddings (B, D) and labels (B,) must come together, one label for each embedding.

    Raises:
        ValueError: Only one of the two is given, or the numbers of rows differ.
    """
    if embeddings is None and labels is None:
        return
    if embeddings is None:
        raise ValueError(f"{name} is None, expected the embeddings that {labels_name} belongs to.")
    if labels is None:
        raise ValueError(f"{labels_name} is None, expected one label for each row of {name}.")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{labels_name} is of shape {tuple(labels.shape)}, expected ({len(embeddings)},): "
            f"one label for each row of {name}."
        )


def unit_vectors(features: Tensor) -> Tensor:
    """L2-normalisation whose gradient is finite in float32, whatever the finite input.

    Rows that came in float16 get theirs back in float16, where it overflows for vectors shorter than about 1e-4; that
    infinity is what a gradient scaler looks for, so it is not clamped.

    Each row is first divided by its largest entry, so that squares neither overflow nor vanish; the result does not
    depend on that divisor, hence neither does the gradient. Rows shorter than 1e-12 become zero vectors and get no
    gradient, where ``torch.nn.functional.normalize`` would multiply theirs by 1e12.

    Args:
        features: (B, D).

    Returns:
        (B, D), each row of length 1 or 0.

    >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    largest = features.detach().abs().amax(dim=1, keepdim=True)
    is_zero = largest < SHORTEST
    scaled = features / largest.masked_fill(is_zero, 1.0)
    scaled = scaled.masked_fill(is_zero, 0.0)
    squares = scaled.square().sum(dim=1, keepdim=True).masked_fill(is_zero, 1.0)
    return scaled * squares.rsqrt()
