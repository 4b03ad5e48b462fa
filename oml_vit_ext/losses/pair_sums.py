"""One pass over all pairs (anchor, column): the contrastive loss's value and gradient at once.

Every pair's loss is piecewise linear in its similarity s, with slope -1 (same label), +1 (other label, s above the
margin) or 0. With W the matrix of slopes, the gradient is W @ columns, and the value is a dot product with W. The
columns are taken in slabs so small that their similarities never leave the processor's cache, so nothing of the size
anchors x columns is ever stored: what remains is little more than the two matrix products. On the CPU the second one
shrinks as well: columns whose slopes are all 0, most of them in a trained model, are left out of it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Similarities per slab. On a CPU, 2 MB of float32 stay in the cache. From 0.25 to 4 MB the speed is the same, but
# threads wait for one another after every operation on a slab, which takes long where other processes share the cores:
# the fewer slabs the better. A GPU wants large matrix products.
CPU_SLAB = 2**19
GPU_SLAB = 2**24


class PairSums(NamedTuple):
    """Sums over all pairs (anchor, column), for K groups of pairs; w is a pair's slope: -1, 0 or +1.

    K is 1 (all pairs in one group), or 2 (positive pairs, then negative pairs).
    """

    slopes: Tensor  # (K, 3): sums of w * (s - margin), of w * w, and of w
    gradient: Tensor | None  # (K, A, D): W @ columns


def may_wait_for_values(device: torch.device) -> bool:
    """Whether Python may look at results in the middle of a step; on a GPU that would stall it."""
    return device.type == "cpu"


def has_any_label(column_labels: Tensor, anchor_labels: Tensor) -> Tensor:
    """Which columns share the label of some anchor: (C,) and (A,) to (C,) booleans."""
    wanted = anchor_labels.sort().values
    place = torch.searchsorted(wanted, column_labels).clamp_(max=len(wanted) - 1)
    return wanted[place] == column_labels


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
) -> PairSums:
    """The sums over all pairs (anchor, column) that the loss and its gradient are made of.

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

    Returns:
        The sums (K, 3) and the gradient (K, A, D), or None in its place; K is 2 with ``split``, else 1.

    >>> z, labels = torch.eye(2), torch.tensor([0, 1])
    >>> memory, memory_labels = torch.tensor([[0.8, 0.6]]), torch.tensor([1])
    >>> sums = pair_sums(z, labels, memory, memory_labels, margin=0.5)
    >>> sums.slopes  # 0.8 - 0.5 of the negative pair less 0.6 - 0.5 of the positive one; 2 pairs; +1 - 1
    tensor([[0.2000, 2.0000, 0.0000]])
    """
    n_anchors, n_columns = len(anchors), len(columns)
    slab_pairs = CPU_SLAB if anchors.device.type == "cpu" else GPU_SLAB
    slab_rows = max(1, min(slab_pairs // n_anchors, n_columns))
    n_groups = 2 if split else 1

    # Buffers of one slab, (columns x anchors): this orientation reads the columns once, in order.
    leave_out_idle = self_start is None and may_wait_for_values(anchors.device)
    shape = (slab_rows, n_anchors)
    similarity, same = anchors.new_empty(shape), anchors.new_empty(shape, dtype=torch.bool)
    slopes = anchors.new_empty((n_groups, *shape))
    gradient = anchors.new_zeros((n_groups, *anchors.shape)) if with_gradient else None
    shares_label = has_any_label(column_labels, anchor_labels) if leave_out_idle else None
    n_slabs = -(-n_columns // slab_rows)
    sums = anchors.new_zeros((max(1, n_slabs), n_groups, 3))

    for number, start in enumerate(range(0, n_columns, slab_rows)):
        slab, labels = columns[start : start + slab_rows], column_labels[start : start + slab_rows]
        s = torch.mm(slab, anchors.T, out=similarity[: len(slab)])
        if shares_label is not None:
            # Not "above": a NaN must not get lost.
            idle = (s.amax(dim=1) <= margin).logical_and_(~shares_label[start : start + slab_rows])
            busy = idle.logical_not_().nonzero().squeeze(1)
            if len(busy) < len(slab) / 2:
                slab, labels, s = slab[busy], labels[busy], s[busy]
        rows = len(slab)
        e, w = same[:rows], slopes[:, :rows]
        torch.eq(labels[:, None], anchor_labels[None, :], out=e)
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
