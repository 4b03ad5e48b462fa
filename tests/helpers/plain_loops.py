"""The formulas of the losses in the plainest possible way: loops over pairs, autograd for the gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def contrastive(
    features: Tensor,
    labels: Tensor,
    memory: Tensor,
    memory_labels: Tensor,
    margin: float,
    memory_weight: float = 1.0,
    reduction: str = "anchors",
) -> Tensor:
    z, m = torch.nn.functional.normalize(features), torch.nn.functional.normalize(memory)
    positive: list[tuple[float, Tensor]] = []
    negative: list[tuple[float, Tensor]] = []
    for i in range(len(z)):
        others = [(1.0, z[j], labels[j]) for j in range(len(z)) if j != i]
        others += [(memory_weight, m[j], memory_labels[j]) for j in range(len(m))]
        for weight, other, label in others:
            s = z[i] @ other
            if labels[i] == label:
                positive.append((weight, (1 - s).clamp(min=0) if reduction == "nonzero_pairs" else 1 - s))
            else:
                negative.append((weight, (s - margin).clamp(min=0)))
    zero = features.sum() * 0
    if reduction == "anchors":
        return zero + sum(weight * loss for weight, loss in positive + negative) / len(z)
    total = zero
    for pairs in (positive, negative):
        count = sum(weight for weight, loss in pairs if loss > 0)
        if count > 0:
            total = total + sum(weight * loss for weight, loss in pairs) / count
    return total


def entropy(features: Tensor, eps: float = 1e-8) -> Tensor:
    z = torch.nn.functional.normalize(features)
    total = features.sum() * 0
    for i in range(len(z)):
        squares = [((z[i] - z[j]) ** 2).sum() for j in range(len(z)) if j != i]
        smallest = min(squares)
        total = total - ((smallest.sqrt() if smallest > 0 else smallest * 0) + eps).log() / len(z)
    return total


def assert_same(loss: Tensor, plain: Tensor, features: Tensor, tolerance: float = 1e-5) -> None:
    """Both losses have the same value and the same gradient with respect to ``features``."""
    (gradient,), (gradient_plain,) = (torch.autograd.grad(one, features) for one in (loss, plain))
    torch.testing.assert_close(loss, plain, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient, gradient_plain, rtol=tolerance, atol=tolerance)


def random_unit(n: int, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, dim, dtype=dtype))
