"""Differential-entropy regulariser (KoLeo): pushes each embedding away from its nearest neighbour.

Kozachenko-Leonenko estimator (arXiv 2102.05644, section 3.2, after Sablayrolles et al., arXiv 1806.03198)::

    L = -1/N sum_i log(rho_i + eps),   rho_i = min_{j != i} |z_i - z_j|
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.distributed import gather_batch
from oml_vit_ext.losses.inputs import check_batch, unit_vectors


class EntropyResult(NamedTuple):
    """Both 0-d: the loss, differentiable, and the mean distance to the nearest neighbour."""

    loss: Tensor
    mean_nn_distance: Tensor


def nearest_in_batch(z: Tensor) -> Tensor:
    """Index of each row's nearest other row: (N, D) -> (N,), N at least 2.

    Distances are taken from differences: near duplicates would be confused by 1 - s, whose resolution is 3e-4.
    """
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        distance = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")
        return distance.fill_diagonal_(torch.inf).argmin(dim=1)


def nearest_of_other_labels(
    z: Tensor, labels: Tensor, memory: Tensor, memory_labels: Tensor, slab_rows: int = 4096
) -> tuple[Tensor, Tensor]:
    """The nearest memory entry of another label: its row index (N,), and whether there is one (N,).

    Entries of the own label are left out: one of them may be the very same image from an earlier epoch, whose distance
    says how far the model has moved, not how spread its embeddings are.
    """
    best = z.new_full((len(z),), -torch.inf)
    index = torch.zeros(len(z), dtype=torch.int64, device=z.device)
    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
        for start in range(0, len(memory), slab_rows):
            similarity = memory[start : start + slab_rows] @ z.T
            same = memory_labels[start : start + slab_rows, None] == labels[None, :]
            top, row = similarity.masked_fill_(same, -torch.inf).max(dim=0)
            index = torch.where(top > best, row + start, index)
            best = torch.maximum(best, top)
    return index, best > -torch.inf


def distance_between(a: Tensor, b: Tensor) -> Tensor:
    """|a - b| along the rows, (N, D) -> (N,), with gradient zero (not NaN) where the two coincide."""
    squares = (a - b).square().sum(dim=1)
    apart = squares > 0
    return torch.where(apart, squares, 1.0).sqrt() * apart


def entropy_loss(
    z: Tensor,
    eps: float = 1e-8,
    labels: Tensor | None = None,
    memory: Tensor | None = None,
    memory_labels: Tensor | None = None,
) -> EntropyResult:
    """
    Args:
        z: (N, D) unit vectors. A duplicate has rho = 0 and gets no gradient from its own term, since no direction leads
            away from itself; a single sample has no neighbour, and the loss is 0 with gradient 0.
        eps: Keeps the logarithm finite.
        labels: (N,) needed with a memory.
        memory: (M, D) constants among which nearest neighbours are searched as well, those of the own label excepted.
        memory_labels: (M,).
    """
    rho = None
    if len(z) > 1:
        rho = distance_between(z, z[nearest_in_batch(z)])
    if memory is not None and memory_labels is not None and labels is not None and len(memory) > 0:
        index, exists = nearest_of_other_labels(z.detach(), labels, memory, memory_labels)
        to_memory = distance_between(z, memory[index])
        # Without any neighbour, rho = 1 stands for "no information": its logarithm is (nearly) 0, its gradient 0.
        alone = torch.ones_like(to_memory)
        rho = torch.where(
            exists, to_memory if rho is None else torch.minimum(rho, to_memory), alone if rho is None else rho
        )
    if rho is None:
        return EntropyResult(z.sum() * 0, z.new_zeros(()))
    return EntropyResult(-(rho + eps).log().mean(), rho.detach().mean())


class DifferentialEntropyLoss(nn.Module):
    """``entropy_loss`` of a batch, as a criterion of OML's pipelines; labels are not used.

    Args:
        eps: Keeps the logarithm finite for duplicates.
    """

    criterion_name = "differential_entropy"

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps = check_number("eps", eps)
        if self.eps == 0:
            raise ValueError("eps must be greater than 0, got 0.")
        self.last_logs: dict[str, Tensor | float] = {}

    def forward(self, features: Tensor, labels: Tensor | list[int]) -> Tensor:
        """(B, D) features and (B,) labels to the scalar loss of the batch of all processes."""
        features, labels = check_batch(features, labels)
        batch = gather_batch(unit_vectors(features), labels, across_ranks=self.training)
        result = entropy_loss(batch.features, self.eps)
        self.last_logs = {"entropy": result.loss.detach(), "mean_nn_distance": result.mean_nn_distance}
        return result.loss

    def extra_repr(self) -> str:
        return f"eps={self.eps:g}"
