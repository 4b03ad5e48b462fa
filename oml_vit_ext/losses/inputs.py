"""What every loss does first: check the arguments and the batch, and put the embeddings on the unit sphere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Vectors shorter than this have no direction worth following: they are zero vectors.
SHORTEST = 1e-12


def check_batch(features: Tensor, labels: Tensor | Sequence[int]) -> tuple[Tensor, Tensor]:
    """
    Args:
        features: (B, D) floating-point embeddings, B at least 1.
        labels: (B,) whole numbers: a tensor on any device, a list or a tuple.

    Returns:
        The features in float32 (float64 stays), and the labels as int64 on the features' device.

    Raises:
        ValueError: wrong shapes or types. On the CPU also for infinite or NaN features; elsewhere that check would
            stall the device at every step, so there the loss becomes NaN, which is what a gradient scaler looks for.
    """
    if not isinstance(features, Tensor) or features.ndim != 2 or not features.is_floating_point() or len(features) == 0:
        got = f"{features.dtype} {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"features must be a floating-point tensor of shape (batch, dim), batch at least 1, got {got}."
        )
    if not isinstance(labels, Tensor):
        labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"labels must be whole numbers (an integer tensor or a list of ints), got {labels.dtype}.")
    if labels.shape != features.shape[:1]:
        raise ValueError(
            f"labels must have one entry per feature: expected shape ({len(features)},), got {tuple(labels.shape)}."
        )
    if features.device.type == "cpu":
        n_bad = int((~torch.isfinite(features)).any(dim=1).sum())
        if n_bad:
            raise ValueError(f"features must be finite: {n_bad} of {len(features)} rows hold NaN or infinity.")
    if features.dtype != torch.float64:
        features = features.float()
    return features, labels.to(device=features.device, dtype=torch.int64)


def unit_vectors(features: Tensor) -> Tensor:
    """L2-normalisation whose gradient is finite whatever the finite input.

    Each row is first divided by its largest entry, so that squares neither overflow nor vanish; the result does not
    depend on that divisor, hence neither does the gradient. Rows shorter than 1e-12 become zero vectors and get no
    gradient, where ``torch.nn.functional.normalize`` would multiply theirs by 1e12.

    Args:
        features: (B, D).

    Returns:
        (B, D), each row of length 1 or 0.
    """
    largest = features.detach().abs().amax(dim=1, keepdim=True)
    is_zero = largest < SHORTEST
    scaled = features / largest.masked_fill(is_zero, 1.0)
    scaled = scaled.masked_fill(is_zero, 0.0)
    squares = scaled.square().sum(dim=1, keepdim=True).masked_fill(is_zero, 1.0)
    return scaled * squares.rsqrt()
