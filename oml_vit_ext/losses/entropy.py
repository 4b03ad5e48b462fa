"""The differential-entropy regulariser (KoLeo): pushes each embedding away from its nearest neighbour.

Kozachenko-Leonenko estimator (El-Nouby et al., arXiv 2102.05644, section 3.2, after Sablayrolles et al., arXiv
1806.03198)::

    L = -1/N sum_i log(rho_i + eps),   rho_i = min_{j != i} |z_i - z_j|
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.losses.inputs import unit_batch


class EntropyResult(NamedTuple):
    """Both 0-d: the loss, differentiable, and the mean distance to the nearest neighbour."""

    loss: Tensor
    mean_nn_distance: Tensor

    def logs(self) -> dict[str, Tensor | float]:
        """What a criterion shows of it in ``last_logs``."""
        return {"entropy": self.loss.detach(), "mean_nn_distance": self.mean_nn_distance}


def entropy_loss(z: Tensor, eps: float = 1e-8) -> EntropyResult:
    """KoLeo of a batch: minus the mean logarithm of the distance to the nearest other embedding.

    A duplicate has rho = 0 and gets no gradient from its own term, since no direction leads away from itself; a single
    sample has no neighbour: loss and gradient are 0.

    Args:
        z: (N, D) unit vectors.
        eps: Keeps the logarithm finite.

    Returns:
        The loss and the mean of the rho_i.

    Source: arXiv 2102.05644, section 3.2; eps is ours.

    >>> loss, distance = entropy_loss(torch.eye(3))  # three corners, each sqrt(2) from the others
    >>> print(f"{loss:.4f}, {distance:.4f}")
    -0.3466, 1.4142
    """
    if len(z) < 2:
        return EntropyResult(z.sum() * 0, z.new_zeros(()))
    rho = distance_between(z, z[nearest_in_batch(z)])
    return EntropyResult(-(rho + eps).log().mean(), rho.detach().mean())


def nearest_in_batch(z: Tensor) -> Tensor:
    """Index of each row's nearest other row: (N, D) -> (N,), N at least 2.

    Distances are taken from differences: near duplicates would be confused by 1 - s, whose resolution is 3e-4.
    """
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.fill_diagonal_(torch.inf).argmin(dim=1)


def distance_between(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| along the rows, (N, D) -> (N,), with gradient zero (not NaN) where the two coincide."""
    squares = (a - b).square().sum(dim=1)
    apart = squares > 0
    return torch.where(apart, squares, 1.0).sqrt() * apart


class DifferentialEntropyLoss(nn.Module):
    """``entropy_loss`` of a batch, as a criterion of OML's pipelines; labels are checked, but not used.

    On several processes it is the loss of the batch of all; in evaluation mode each process keeps to itself.

    Args:
        eps: Keeps the logarithm finite for duplicates; at least 1.2e-38, the smallest that float32 holds in full.

    Raises:
        ValueError: ``eps`` is no such number.

    >>> criterion = DifferentialEntropyLoss()
    >>> criterion(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]), [0, 0, 1])  # any length: normalised here
    tensor(-0.3466)
    """

    criterion_name = "differential_entropy"

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = check_number("eps", eps, torch.finfo(torch.float32).tiny)
        self.last_logs: dict[str, Tensor | float] = {}

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """The loss of a batch; writes ``last_logs`` (``entropy``, ``mean_nn_distance``).

        Args:
            features: (B, D) embeddings of any length.
            labels: (B,) whole numbers.

        Returns:
            The scalar loss, in float32 (float64 for float64 embeddings).

        Raises:
            ValueError: Wrong shapes or types, or embeddings that are not finite (``inputs.check_batch``).
        """
        batch = unit_batch(features, labels, across_ranks=self.training)
        result = entropy_loss(batch.features, self.eps)
        self.last_logs = result.logs()
        return result.loss

    def extra_repr(self) -> str:
        return f"eps={self.eps:g}"
