"""Parts of pytorch-metric-learning that go wrong once a batch is compared with more than itself, put right.

Here references begin with the batch: an anchor and a reference of the same index are the same image. The library's
parts know that for a batch alone; with references, some take the image for its own nearest positive, or look for an
index of the references among the rows of the batch. Without references each of these is the library's own.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_metric_learning.losses import nca_loss, triplet_margin_loss
from pytorch_metric_learning.miners import (
    batch_easy_hard_miner,
    batch_hard_miner,
    distance_weighted_miner,
    hdc_miner,
    multi_similarity_miner,
    uniform_histogram_miner,
)
from pytorch_metric_learning.reducers import class_weighted_reducer, per_anchor_reducer
from torch import Tensor

Tuples = tuple[Tensor, ...]


def other_images(tuples: Tuples) -> Tuples:
    """Drops pairs and triplets whose positive is the anchor itself.

    Args:
        tuples: Indices (anchors, positives, negatives), or (anchors, positives, anchors, negatives).

    >>> other_images((torch.tensor([0, 0]), torch.tensor([0, 6]), torch.tensor([7, 7])))
    (tensor([0]), tensor([6]), tensor([7]))
    """
    keep = tuples[0] != tuples[1]
    if len(tuples) == 3:
        return tuple(index[keep] for index in tuples)
    return tuples[0][keep], tuples[1][keep], tuples[2], tuples[3]


def all_pairs(labels: Tensor, reference_labels: Tensor) -> Tuples:
    """(anchors, positives, anchors, negatives) of all pairs of a batch and its references, none with itself."""
    same = labels[:, None] == reference_labels
    return other_images((*torch.where(same), *torch.where(~same)))


class TripletMarginLoss(triplet_margin_loss.TripletMarginLoss):
    """``swap`` needs the distance of a positive and a negative, and both may be references."""

    def compute_loss(
        self, embeddings: Tensor, labels: Tensor, indices_tuple: Tuples | None, ref_emb: Tensor, ref_labels: Tensor
    ) -> Any:
        if not self.swap or ref_emb is embeddings:
            return super().compute_loss(embeddings, labels, indices_tuple, ref_emb, ref_labels)
        pairs = all_pairs(labels, ref_labels) if indices_tuple is None else indices_tuple
        anchors, positives, negatives = as_triplets(pairs)
        if len(anchors) == 0:
            return self.zero_losses()
        of_anchors = self.distance(embeddings, ref_emb)
        distinct, row = positives.unique(return_inverse=True)
        of_positives = self.distance(ref_emb[distinct], ref_emb)
        nearer = self.distance.smallest_dist(of_anchors[anchors, negatives], of_positives[row, negatives])
        violation = self.distance.margin(of_anchors[anchors, positives], nearer) + self.margin
        value = torch.nn.functional.softplus(violation) if self.smooth_loss else violation.relu()
        indices = (anchors, positives, negatives)
        return {"loss": {"losses": value, "indices": indices, "reduction_type": "triplet"}}


class NCALoss(nca_loss.NCALoss):
    """An image is no neighbour of itself (Goldberger et al., Neighbourhood components analysis, eq. 1).

    Where no anchor has another image of its label the loss is zero; the library's is the mean of nothing, NaN.
    """

    def nca_computation(
        self, query: Tensor, reference: Tensor, query_labels: Tensor, reference_labels: Tensor, indices_tuple: Any
    ) -> Any:
        if query is reference:
            found = super().nca_computation(query, reference, query_labels, reference_labels, indices_tuple)
        else:
            found = self._with_references(query, reference, query_labels, reference_labels, indices_tuple)
        return found if len(found["loss"]["losses"]) else self.zero_losses()

    def _with_references(
        self, query: Tensor, reference: Tensor, query_labels: Tensor, reference_labels: Tensor, indices_tuple: Any
    ) -> Any:
        sign = 1 if self.distance.is_inverted else -1
        closeness = self.softmax_scale * sign * self.distance(query, reference)
        closeness = closeness.masked_fill(own_entries(query, reference), -torch.inf)
        same = query_labels[:, None] == reference_labels
        right = (closeness.softmax(dim=1) * same).sum(dim=1)
        found = right > 0
        anchors = torch.arange(len(query), device=query.device)
        weights = torch.ones_like(right)
        if indices_tuple is not None and any(map(len, indices_tuple)):
            of_anchors = indices_tuple[0] if len(indices_tuple) == 3 else torch.cat(indices_tuple[0::2])
            counts = torch.bincount(of_anchors, minlength=len(query)).to(right.dtype)
            weights = counts / counts.max()
        value = -right[found].log() * weights[found]
        return {"loss": {"losses": value, "indices": anchors[found], "reduction_type": "element"}}


class _HardestOther:
    """Rows of distances in which an image does not stand against itself."""

    def get_x_per_row(
        self, xtype: str, mat: Tensor, anchor_idx: Tensor, other_idx: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        keep = anchor_idx != other_idx
        return super().get_x_per_row(xtype, mat, anchor_idx[keep], other_idx[keep], *args, **kwargs)  # type: ignore[misc]


class BatchEasyHardMiner(_HardestOther, batch_easy_hard_miner.BatchEasyHardMiner):
    """The easiest positive is another image."""


class BatchHardMiner(_HardestOther, batch_hard_miner.BatchHardMiner):
    """An anchor that is its only positive has no triplet."""


class MultiSimilarityMiner(multi_similarity_miner.MultiSimilarityMiner):
    """An anchor that is its only positive has no pairs (Wang et al., Multi-similarity loss, eq. 8 and 9)."""

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tuples:
        if ref_emb is embeddings:
            found: Tuples = super().mine(embeddings, labels, ref_emb, ref_labels)
            return found
        sign = 1 if self.distance.is_inverted else -1
        similarity = sign * self.distance(embeddings, ref_emb)
        negative = labels[:, None] != ref_labels
        positive = ~negative & ~own_entries(embeddings, ref_emb)
        farthest = similarity.masked_fill(~positive, torch.inf).amin(dim=1, keepdim=True)
        nearest = similarity.masked_fill(~negative, -torch.inf).amax(dim=1, keepdim=True)
        hard_positive = positive & (similarity - self.epsilon < nearest)
        hard_negative = negative & (similarity + self.epsilon > farthest)
        return (*torch.where(hard_positive), *torch.where(hard_negative))


class HDCMiner(hdc_miner.HDCMiner):
    """The share of the hardest pairs is taken of pairs of two images."""

    def set_idx(self, labels: Tensor, ref_labels: Tensor) -> None:
        super().set_idx(labels, ref_labels)
        self.a1, self.p, self.a2, self.n = other_images((self.a1, self.p, self.a2, self.n))


class UniformHistogramMiner(uniform_histogram_miner.UniformHistogramMiner):
    """The bins begin at the nearest other image."""

    def get_uniformly_distributed_pairs(
        self, distances: Tensor, anchors: Tensor, others: Tensor, num_pairs: int
    ) -> tuple[Tensor, Tensor]:
        keep = anchors != others
        if not keep.any():
            return anchors[keep], others[keep]
        picked: tuple[Tensor, Tensor] = super().get_uniformly_distributed_pairs(
            distances[keep], anchors[keep], others[keep], num_pairs
        )
        return picked


class DistanceWeightedMiner(distance_weighted_miner.DistanceWeightedMiner):
    """Positives are drawn among the other images."""

    def mine(self, embeddings: Tensor, labels: Tensor, ref_emb: Tensor, ref_labels: Tensor) -> Tuples:
        anchors, positives, negatives = super().mine(embeddings, labels, ref_emb, ref_labels)
        if ref_emb is embeddings:
            return anchors, positives, negatives
        positive = (labels[:, None] == ref_labels) & ~own_entries(embeddings, ref_emb)
        keep = positive.any(dim=1)[anchors]
        anchors, positives, negatives = anchors[keep], positives[keep].clone(), negatives[keep]
        again = anchors == positives
        if again.any():
            positives[again] = positive[anchors[again]].float().multinomial(1).flatten()
        return anchors, positives, negatives


class PerAnchorReducer(per_anchor_reducer.PerAnchorReducer):
    """There may be more references than anchors; and a pair that comes several times has its gradient once."""

    def tuple_reduction_helper(self, losses: Tensor, loss_indices: Tuples, embeddings: Tensor, labels: Tensor) -> Any:
        anchors, others = loss_indices
        width = max(len(embeddings), int(others.max()) + 1 if len(others) else 0)
        flat = losses.flatten()  # some losses are a column
        sums, times = (
            flat.new_zeros(len(embeddings), width).index_put((anchors, others), value, accumulate=True)
            for value in (flat, torch.ones_like(flat))
        )
        of_anchors = self.aggregation_func(sums / times.clamp(min=1), (times > 0).sum(dim=1))
        return self.element_reduction(
            of_anchors, torch.arange(len(embeddings), device=losses.device), embeddings, labels
        )


class ClassWeightedReducer(class_weighted_reducer.ClassWeightedReducer):
    """Some losses are a column, which the library multiplies with every weight."""

    def element_reduction_helper(self, losses: Tensor, indices: Tensor, labels: Tensor) -> Any:
        return super().element_reduction_helper(losses.flatten(), indices, labels)


def own_entries(embeddings: Tensor, references: Tensor) -> Tensor:
    """(B, R) true where a reference is the anchor itself."""
    return torch.eye(len(embeddings), len(references), dtype=torch.bool, device=embeddings.device)


def as_triplets(tuples: Tuples) -> Tuples:
    """(anchors, positives, negatives): all that share their anchor, if pairs are given."""
    if len(tuples) == 3:
        return tuples
    positive, negative = torch.where(tuples[0][:, None] == tuples[2])
    return tuples[0][positive], tuples[1][positive], tuples[3][negative]


PUT_RIGHT: dict[str, type[torch.nn.Module]] = {
    part.__name__: part
    for part in (
        TripletMarginLoss,
        NCALoss,
        BatchEasyHardMiner,
        BatchHardMiner,
        MultiSimilarityMiner,
        HDCMiner,
        UniformHistogramMiner,
        DistanceWeightedMiner,
        PerAnchorReducer,
        ClassWeightedReducer,
    )
}
