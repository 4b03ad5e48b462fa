"""From tokens to one vector: pure functions, and a thin module that picks one by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oml_vit_ext.common.messages import unknown_name

POOLINGS = ("cls", "avg", "max", "gem")


def cls_pool(tokens: Tensor) -> Tensor:
    """The first prefix token, CLS. ``(B, N, D)`` -> ``(B, D)``. A distillation token is not part of it."""
    return tokens[:, 0]


def avg_pool(tokens: Tensor, num_prefix_tokens: int) -> Tensor:
    """Mean of the patch tokens. ``(B, N, D)`` -> ``(B, D)``."""
    return tokens[:, num_prefix_tokens:].mean(dim=1)


def max_pool(tokens: Tensor, num_prefix_tokens: int) -> Tensor:
    """Maximum of the patch tokens, per dimension. ``(B, N, D)`` -> ``(B, D)``."""
    return tokens[:, num_prefix_tokens:].amax(dim=1)


def gem_pool(tokens: Tensor, num_prefix_tokens: int, p: float = 3.0, eps: float = 1e-6) -> Tensor:
    """Generalised mean of the patch tokens, ``(mean x^p)^(1/p)`` with x clamped from below at ``eps``.

    ``(B, N, D)`` -> ``(B, D)``. p = 1 is the mean of the clamped values, p -> inf the maximum. Computed in float32
    at least: ``eps ** p`` is zero in half precision, and its root has no gradient there.
    Source: Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, eq. 3.
    """
    patches = tokens[:, num_prefix_tokens:]
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    return patches.clamp(min=eps).pow(p).mean(dim=1).pow(1.0 / p)


class Pooling(nn.Module):
    """Tokens ``(B, N, D)`` -> vector ``(B, D)``, by name.

    Args:
        pooling: ``cls``, or ``avg``, ``max``, ``gem`` over the patch tokens.
        num_prefix_tokens: How many tokens before the patch tokens (CLS, distillation, registers).
        gem_p: The exponent of GeM.

    Raises:
        ValueError: ``pooling`` is not known, or ``gem_p`` is not positive.
    """

    def __init__(self, pooling: str, num_prefix_tokens: int, gem_p: float = 3.0) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(unknown_name("pooling", pooling, POOLINGS))
        if gem_p <= 0:
            raise ValueError(f"gem_p is {gem_p}, expected a positive number (the usual one is 3.0).")
        self.pooling = pooling
        self.num_prefix_tokens = num_prefix_tokens
        self.gem_p = gem_p

    def forward(self, tokens: Tensor) -> Tensor:
        if self.pooling == "cls":
            return cls_pool(tokens)
        if self.pooling == "avg":
            return avg_pool(tokens, self.num_prefix_tokens)
        if self.pooling == "max":
            return max_pool(tokens, self.num_prefix_tokens)
        return gem_pool(tokens, self.num_prefix_tokens, self.gem_p)

    def extra_repr(self) -> str:
        return self.pooling + (f", p={self.gem_p}" if self.pooling == "gem" else "")
