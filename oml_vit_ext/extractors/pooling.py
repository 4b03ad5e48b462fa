"""From tokens to one vector: timm's poolings and GeM, and a thin module that picks one by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.messages import unknown_name

POOLINGS = ("cls", "avg", "max", "gem", "map")
_SMALLEST = 1e-6


def gem_pool(tokens: Tensor, num_prefix_tokens: int, p: float = 3.0) -> Tensor:
    """Generalised mean of the patch tokens, ``(mean x^p)^(1/p)`` with x clamped from below at 1e-6.

    ``(B, N, D)`` -> ``(B, D)``. p = 1 is the mean of the clamped values, p -> inf the maximum. Computed in float32
    at least: ``1e-6 ** p`` is zero in half precision, and its root has no gradient there.
    Source: Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, eq. 3.

    Each value is taken relative to the largest of its channel, so that no power overflows or vanishes for a large p;
    the result does not depend on that divisor, hence neither does the gradient.

    Args:
        tokens: ``(B, N, D)``, prefix tokens first.
        num_prefix_tokens: How many these are; they are left out.
        p: The exponent, positive.
    """
    patches = tokens[:, num_prefix_tokens:]
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32)).clamp(min=_SMALLEST)
    largest = patches.detach().amax(dim=1, keepdim=True)
    return largest[:, 0] * (patches / largest).pow(p).mean(dim=1).pow(1.0 / p)


class Pooling(nn.Module):
    """Tokens ``(B, N, D)`` -> vector ``(B, D)``, by name.

    Args:
        pooling: ``cls``, or ``avg``, ``max``, ``gem`` over the patch tokens. A distillation token is part of none.
            ``map`` is a part of the backbone, and is not computed here.
        num_prefix_tokens: How many tokens before the patch tokens (CLS, distillation, registers).
        gem_p: The exponent of GeM.

    Raises:
        ValueError: ``pooling`` is not known, ``num_prefix_tokens`` no whole number, or ``gem_p`` no positive number.

    >>> tokens = torch.tensor([[[9.0], [1.0], [3.0]]])  # CLS and two patches
    >>> [Pooling(name, 1)(tokens).item() for name in ("cls", "avg", "max")]
    [9.0, 2.0, 3.0]
    """

    def __init__(self, pooling: str, num_prefix_tokens: int, gem_p: float = 3.0) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(unknown_name("pooling", pooling, POOLINGS))
        if not check_number("gem_p", gem_p) > 0:
            raise ValueError(f"gem_p is {gem_p}, expected a positive number (the usual one is 3.0).")
        self.pooling = pooling
        self.num_prefix_tokens = check_whole("num_prefix_tokens", num_prefix_tokens)
        self.gem_p = gem_p

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, N, D)`` -> ``(B, D)``."""
        if self.pooling == "map":
            raise RuntimeError("Pooling 'map' needs the backbone: it is done by backbone.pool_as_trained.")
        from timm.layers.pool1d import global_pool_nlc  # timm costs 6 % of the start

        if self.pooling == "gem":
            return gem_pool(tokens, self.num_prefix_tokens, self.gem_p)
        pool_type = "token" if self.pooling == "cls" else self.pooling
        return global_pool_nlc(tokens, pool_type, num_prefix_tokens=self.num_prefix_tokens)

    def extra_repr(self) -> str:
        return self.pooling + (f", p={self.gem_p}" if self.pooling == "gem" else "")
