"""The two branches of DToP: CLS tokens of several layers to one vector, patch maps of several layers to one vector.

Source: Song et al., Boosting vision transformers for image retrieval, arXiv 2210.11909. The paper does not give
the layout: it is our guess.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BRANCHES = ("global", "local", "both")


class GlobalBranch(nn.Module):
    """CLS tokens of k layers to one vector by one fully connected layer: k times ``(B, D)`` -> ``(B, N)``."""

    def __init__(self, n_layers: int, dim: int, out_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(n_layers * dim, out_dim)

    def forward(self, cls_tokens: list[Tensor]) -> Tensor:
        return self.fc(torch.cat(cls_tokens, dim=-1))


class LocalBranch(nn.Module):
    """Patch tokens of k layers to one vector: k times ``(B, h * w, D)`` -> ``(B, N)``.

    The k maps side by side, a 1 x 1 convolution to Y ``(B, C, h, w)``, Y + locality(Y), the mean over the map, a fully
    connected layer.

    Args:
        n_layers, dim: k and D.
        local_dim: C.
        out_dim: N.
        locality: Maps ``(B, C, h, w)`` to the same shape, or ``None`` for Y alone.
    """

    def __init__(self, n_layers: int, dim: int, local_dim: int, out_dim: int, locality: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_layers * dim, local_dim, 1)
        self.locality = locality
        self.fc = nn.Linear(local_dim, out_dim)

    def forward(self, patch_tokens: list[Tensor], grid: tuple[int, int]) -> Tensor:
        if self.locality is None:  # a mean and a 1 x 1 convolution commute: this order is cheaper by far
            tokens = torch.cat(patch_tokens, dim=-1)
            return self.fc(self.conv(tokens.mean(dim=1)[:, :, None, None]).flatten(1))
        return self.fc(self.maps(patch_tokens, grid).mean(dim=(2, 3)))

    def maps(self, patch_tokens: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """Y + locality(Y), ``(B, C, h, w)``: the vector is made of its mean."""
        tokens = torch.cat(patch_tokens, dim=-1)
        maps = self.conv(tokens.unflatten(1, grid).permute(0, 3, 1, 2))  # channels last in memory: no copy, and faster
        return maps if self.locality is None else maps + self.locality(maps)
