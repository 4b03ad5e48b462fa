"""The contrastive loss of IRT over a batch and a cross-batch memory, as pure functions.

With cosine similarity s and labels y (El-Nouby et al., "Training Vision Transformers for Image Retrieval",
arXiv 2102.05644; cross-batch memory: Wang et al., arXiv 1912.06798)::

    l(i, j) = 1 - s_ij               if y_i = y_j
              max(0, s_ij - margin)  otherwise

Every pair's loss is piecewise linear in s with slope -1, 0 or +1. One pass over the columns therefore gives the value
*and* the gradient: with W the matrix of slopes, the gradient is W @ columns and the value is a dot product with W.
The columns are taken in slabs so small that the similarities never leave the processor's cache, and nothing of the size
batch x memory is ever stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

REDUCTIONS = ("anchors", "nonzero_pairs")

# Similarities per slab: 0.5 MB of float32 stays in a core's cache; a GPU wants larger matrix products instead.
CPU_SLAB = 2**17
GPU_SLAB = 2**24


class PairSums(NamedTuple):
    """Sums over all pairs (anchor, column), for K groups of pairs; w is a pair's slope: -1, 0 or +1.

    K is 1 (all pairs in one group), or 2 (positive pairs, then negative pairs).
    """

    slopes: Tensor  # (K, 3): sums of w * (s - margin), of w * w, and of w
    gradient: Tensor | None  # (K, A, D): W @ columns


def pair_sums(
    anchors: Tensor,
    anchor_labels: Tensor,
    columns: Tensor,
    column_labels: Tensor,
    margin: float,
    *,
    self_start: int | None = None,
    split: bool = False,
    with_gradient: bool = True,
    slab_rows: int | None = None,
) -> PairSums:
    """
    Args:
        anchors: (A, D) unit vectors.
        anchor_labels: (A,).
        columns: (C, D) unit vectors, same dtype.
        column_labels: (C,).
        margin: Similarity above which a negative pair costs something.
        self_start: Anchor i is column ``self_start + i`` and is not compared with itself. None: anchors and columns
            are different samples.
        split: Keep positive and negative pairs apart, and leave out positive pairs of no loss (s >= 1).
        with_gradient: Form the gradient with respect to the anchors, columns held fixed.
        slab_rows: Columns per slab; by default a slab holds what fits into the cache.
    """
    n_anchors, n_columns = len(anchors), len(columns)
    if slab_rows is None:
        slab_rows = max(1, (CPU_SLAB if anchors.device.type == "cpu" else GPU_SLAB) // n_anchors)
    slab_rows = max(1, min(slab_rows, n_columns))
    n_groups = 2 if split else 1

    # Buffers of one slab, (columns x anchors): this orientation reads the columns once, in order.
    shape = (slab_rows, n_anchors)
    similarity, same = anchors.new_empty(shape), anchors.new_empty(shape, dtype=torch.bool)
    slopes = anchors.new_empty((n_groups, *shape))
    gradient = anchors.new_zeros((n_groups, *anchors.shape)) if with_gradient else None
    n_slabs = -(-n_columns // slab_rows)
    sums = anchors.new_zeros((max(1, n_slabs), n_groups, 3))

    for number, start in enumerate(range(0, n_columns, slab_rows)):
        slab = columns[start : start + slab_rows]
        rows = len(slab)
        s, e, w = similarity[:rows], same[:rows], slopes[:, :rows]
        torch.mm(slab, anchors.T, out=s)
        torch.eq(column_labels[start : start + rows, None], anchor_labels[None, :], out=e)
        if split:
            torch.logical_and(e, s < 1, out=w[0]).neg_()
        s.sub_(margin)
        torch.gt(s, 0, out=w[-1])
        w[-1].masked_fill_(e, 0.0 if split else -1.0)
        if self_start is not None:
            first, last = max(start, self_start), min(start + rows, self_start + n_anchors)
            if first < last:
                own = w[:, first - start : last - start, first - self_start : last - self_start]
                own.diagonal(dim1=1, dim2=2).zero_()
        for group in range(n_groups):
            flat = w[group].reshape(-1)
            torch.dot(flat, s.view(-1), out=sums[number, group, 0])
            torch.dot(flat, flat, out=sums[number, group, 1])
            torch.sum(flat, dim=0, out=sums[number, group, 2])
            if gradient is not None:
                gradient[group].addmm_(w[group].T, slab)
    return PairSums(sums.sum(dim=0), gradient)


class PairLosses(NamedTuple):
    """0-d tensors: sums of the positive and negative pairs' losses, and how many pairs have a slope."""

    positive: Tensor
    negative: Tensor
    n_positive: Tensor
    n_negative: Tensor


def pair_losses(slopes: Tensor, margin: float) -> PairLosses:
    """Reads the losses off the sums of ``PairSums.slopes`` of two groups, (2, 3).

    A negative pair's loss is s - margin; a positive pair's is 1 - s = (1 - margin) - (s - margin). Nothing large
    cancels, unlike in sums of s itself.
    """
    n_positive, n_negative = slopes[0, 1], slopes[1, 1]
    return PairLosses(slopes[0, 0] + (1 - margin) * n_positive, slopes[1, 0], n_positive, n_negative)


class _LossWithGradient(torch.autograd.Function):
    """Gives a value the gradient that was formed together with it."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(features, gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        features, gradient = ctx.saved_tensors
        return _FinalGradient.apply(grad_output, features, gradient), None, None


class _FinalGradient(torch.autograd.Function):
    """A gradient that refuses to be differentiated.

    ``once_differentiable`` alone would let a gradient penalty pass without a word when the incoming gradient is a
    constant, and treat the slopes' product with the batch as constant too: a wrong second derivative.
    """

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
        return grad_output * gradient

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "The contrastive loss cannot be differentiated twice: its gradient is formed in the forward pass. "
            "Leave out create_graph=True."
        )


def with_gradient(value: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
    """``value`` (0-d) as a function of ``features`` (B, D) whose gradient there is ``gradient`` (B, D)."""
    result: Tensor = _LossWithGradient.apply(features, value, gradient)
    return result
