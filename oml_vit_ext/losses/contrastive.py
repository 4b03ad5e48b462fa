"""The contrastive loss of IRT over a batch and a cross-batch memory, as a pure function.

With cosine similarity s and labels y (El-Nouby et al., "Training Vision Transformers for Image Retrieval",
arXiv 2102.05644; cross-batch memory: Wang et al., arXiv 1912.06798)::

    l(i, j) = 1 - s_ij               if y_i = y_j
              max(0, s_ij - margin)  otherwise

    L = 1/N sum_i [ sum_{j in batch, j != i} l(i, j) + memory_weight * sum_{m in memory} l(i, m) ]

Value and gradient come out of one pass over the pairs (``pair_sums``); at the end of this file the two are joined for
autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.losses.inputs import check_pair
from oml_vit_ext.losses.pair_sums import pair_sums

REDUCTIONS = ("anchors", "nonzero_pairs")


class ContrastiveResult(NamedTuple):
    """Both 0-d: the loss, differentiable, and how many negative pairs lie above the margin (batch and memory)."""

    loss: Tensor
    n_active_negatives: Tensor


class _Columns(NamedTuple):
    """What the anchors are compared with."""

    features: Tensor  # (C, D)
    labels: Tensor  # (C,)
    weight: float  # of each pair
    # Gradient factor: 2 if the anchors are also columns (the similarity matrix is symmetric), else 1.
    roles: float
    first_anchor: int | None = None  # the column that is anchor 0; None: no anchor is among the columns


def contrastive_loss(
    anchors: Tensor,
    anchor_labels: Tensor,
    batch: Tensor | None = None,
    batch_labels: Tensor | None = None,
    memory: Tensor | None = None,
    memory_labels: Tensor | None = None,
    *,
    margin: float = 0.5,
    memory_weight: float = 1.0,
    reduction: str = "anchors",
    first_anchor: int = 0,
    sum_over_ranks: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> ContrastiveResult:
    """The loss L above: all pairs of a batch, and the pairs of the batch with a memory.

    The gradient is that of the whole loss with respect to ``anchors`` in both of their roles, as rows and as columns of
    the batch's similarity matrix; it is symmetric, so the second role doubles the first. Hence a process that holds a
    part of the batch needs the other parts' embeddings, but not their gradients.

    Args:
        anchors: (A, D) unit vectors.
        anchor_labels: (A,) int64.
        batch: (N, D) the whole batch, whose rows from ``first_anchor`` on are the anchors: all of it by default, a part
            of it where several processes share a batch.
        batch_labels: (N,).
        memory: (M, D) unit vectors of past batches, constants. None or empty: no memory.
        memory_labels: (M,).
        margin: Cosine similarity above which a negative pair costs something.
        memory_weight: Weight of a pair with a memory entry relative to a pair inside the batch.
        reduction: ``"anchors"``: divide the sum over all pairs by N, as in the paper. ``"nonzero_pairs"``: average
            positive and negative pairs separately over the pairs of non-zero loss and add the two averages, as
            pytorch-metric-learning does; the averages are weighted, a memory pair counting ``memory_weight``. (The
            value is that of its ``CrossBatchMemory``, the gradient is the value's own: that class takes the batch's
            columns for constants.)
        first_anchor: Row of ``batch`` that is anchor 0.
        sum_over_ranks: Adds up a small tensor over all processes.

    Returns:
        The loss of the whole batch, and the number of active negatives.

    Raises:
        ValueError: Embeddings without their labels or the reverse, different numbers of the two, an unknown
            ``reduction``, or a ``first_anchor`` from which on the batch has not as many rows as there are anchors.
        RuntimeError: On differentiating twice.

    Source: arXiv 2102.05644, section 3.1, and arXiv 1912.06798 for the memory.

    >>> z = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])
    >>> result = contrastive_loss(z, torch.tensor([0, 0, 1]), margin=0.5)
    >>> result.loss  # 2 * (1 - 0.6) of the positive pair, 2 * (0.8 - 0.5) and 2 * (0.96 - 0.5) of the others, by 3
    tensor(0.7733)
    >>> int(result.n_active_negatives)
    4
    >>> memory, memory_labels = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    >>> contrastive_loss(z, torch.tensor([0, 0, 1]), memory=memory, memory_labels=memory_labels).loss
    tensor(1.2067)
    """
    check_reduction(reduction)
    check_pair("anchors", anchors, "anchor_labels", anchor_labels)
    check_pair("batch", batch, "batch_labels", batch_labels)
    check_pair("memory", memory, "memory_labels", memory_labels)
    if batch is None or batch_labels is None:
        batch, batch_labels = anchors, anchor_labels
    check_whole("first_anchor", first_anchor, high=len(batch) - len(anchors), why="so many rows are no anchors")
    groups = [_Columns(batch.detach(), batch_labels, 1.0, 2.0, first_anchor)]
    if memory is not None and memory_labels is not None and len(memory) > 0:
        groups.append(_Columns(memory, memory_labels, memory_weight, 1.0))

    needs_gradient = torch.is_grad_enabled() and anchors.requires_grad
    fixed = anchors.detach()
    # Autocast would run the matrix products in half precision.
    with torch.no_grad(), torch.autocast(fixed.device.type, enabled=False):
        passes = [
            pair_sums(
                fixed,
                anchor_labels,
                columns.features,
                columns.labels,
                margin,
                self_start=columns.first_anchor,
                split=reduction == "nonzero_pairs",
                with_gradient=needs_gradient,
            )
            for columns in groups
        ]
        slopes = sum_over_ranks(torch.stack([one.slopes for one in passes]))  # (groups, kinds of pairs, statistics)
        n_negative = (slopes[..., 1] + slopes[..., 2]) / 2
        n_positive = (slopes[..., 1] - slopes[..., 2]) / 2
        # A negative pair's loss is s - margin, a positive pair's 1 - s = (1 - margin) - (s - margin).
        losses = slopes[..., 0] + (1 - margin) * n_positive

        if reduction == "nonzero_pairs":
            count = _weighted_sum(n_positive + n_negative, groups)
            scale = torch.where(count > 0, count, torch.ones_like(count)).reciprocal()
        else:
            scale = losses.new_full((1,), 1 / len(batch))
        value = (_weighted_sum(losses, groups) * scale).sum()
        gradient = None
        if needs_gradient:
            for columns, one in zip(groups, passes, strict=True):
                part = torch.einsum("k,kad->ad", scale * (columns.weight * columns.roles), one.gradient)
                gradient = part if gradient is None else gradient + part
    loss = value if gradient is None else _ValueWithGradient.apply(anchors, value, gradient)
    return ContrastiveResult(loss, n_negative.sum())


def check_reduction(reduction: str) -> str:
    """``reduction`` itself, or a ValueError with the nearest valid name."""
    if reduction not in REDUCTIONS:
        raise ValueError(unknown_name("reduction", reduction, REDUCTIONS))
    return reduction


def _weighted_sum(values: Tensor, groups: list[_Columns]) -> Tensor:
    """Sum over the first dimension, by weight. The weights stay Python numbers: a tensor of them would stall a GPU."""
    return torch.stack([columns.weight * value for columns, value in zip(groups, values, strict=True)]).sum(dim=0)


class _ValueWithGradient(torch.autograd.Function):
    """A value (0-d) as a function of the anchors (A, D), with the gradient (A, D) that was formed together with it."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(anchors, gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        anchors, gradient = ctx.saved_tensors
        return _FinalGradient.apply(grad_output, anchors, gradient), None, None


class _FinalGradient(torch.autograd.Function):
    """A gradient that refuses to be differentiated.

    ``once_differentiable`` is not enough: with a constant incoming gradient, a gradient penalty would run without error
    and give a wrong second derivative. We raise instead.
    """

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, anchors: Tensor, gradient: Tensor) -> Tensor:
        return grad_output * gradient

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "create_graph is True, expected False for the contrastive loss: its gradient is formed in the forward "
            "pass, so it cannot be differentiated twice."
        )
