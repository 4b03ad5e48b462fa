"""The contrastive loss with a cross-batch memory, as a criterion of OML's pipelines (IRT_L)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.distributed import Batch, gather_batch, gather_constants, sum_over_ranks
from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.common.momentum_embeddings import MemorySource
from oml_vit_ext.losses.contrastive import REDUCTIONS, contrastive_loss
from oml_vit_ext.losses.inputs import check_batch, unit_vectors
from oml_vit_ext.losses.memory import FeatureMemory


class ContrastiveXBMLoss(nn.Module):
    """``contrastive_loss`` of a batch and of the batches before it.

    The memory holds past batches only: the current one enters after the loss is computed, and only in training mode.
    Of ``ExtractorWithMomentum`` the moving average's embeddings enter instead; the log tells once which of the two the
    memory stores. On several processes the loss, its gradient and the memory are those of the concatenated batch; in
    evaluation mode each process keeps to itself.

    Args:
        margin: Cosine similarity above which a negative pair costs something, 0 to 1.
        memory_size: Embeddings kept; 0 means no memory.
        memory_start: Training calls before the memory is used; it is filled meanwhile.
        memory_weight: Weight of a pair with a memory entry relative to a pair inside the batch.
        reduction: ``"anchors"`` (the paper's) or ``"nonzero_pairs"`` (pytorch-metric-learning's default).
    """

    criterion_name = "contrastive_xbm"

    def __init__(
        self,
        margin: float = 0.5,
        memory_size: int = 0,
        memory_start: int = 0,
        memory_weight: float = 1.0,
        reduction: str = "anchors",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(unknown_name("reduction", reduction, REDUCTIONS))
        self.margin = check_number("margin", margin, high=1.0)
        self.memory_start = check_whole("memory_start", memory_start)
        self.memory_weight = check_number("memory_weight", memory_weight)
        self.reduction = reduction
        self.memory = FeatureMemory(check_whole("memory_size", memory_size))
        self._memory_source = MemorySource(type(self).__name__)
        self.last_logs: dict[str, Tensor | float] = {}

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """
        Args:
            features: (B, D) of any length; they are normalised here.
            labels: (B,) whole numbers.

        Returns:
            The scalar loss, in float32 (float64 for float64 features).
        """
        features, labels = check_batch(features, labels)
        fills_memory = self.training and self.memory.size > 0
        momentum = self._memory_source.momentum_of(features) if fills_memory else None
        batch = gather_batch(unit_vectors(features), labels, across_ranks=self.training)
        loss = self.batch_loss(batch)
        if self.training:
            self.memory.enqueue(self._for_memory(batch, momentum), batch.labels)
        return loss

    def batch_loss(self, batch: Batch) -> Tensor:
        """The loss of a batch beside the memory as it is; writes ``last_logs``."""
        own = slice(batch.start, batch.stop)
        memory, memory_labels = self.used_memory(batch.features)
        result = contrastive_loss(
            batch.features[own],
            batch.labels[own],
            batch.features,
            batch.labels,
            memory,
            memory_labels,
            margin=self.margin,
            memory_weight=self.memory_weight,
            reduction=self.reduction,
            first_anchor=batch.start,
            sum_over_ranks=sum_over_ranks if self.training else lambda sums: sums,
        )
        self.last_logs = {
            "contrastive": result.loss.detach(),
            "active_negatives": result.n_active_negatives / len(batch.features),
            "memory_fill": len(self.memory) / max(1, self.memory.size),
        }
        return result.loss

    def used_memory(self, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The memory's features (M, D) and labels (M,), or None while it is only being filled."""
        if len(self.memory) == 0 or self.memory.n_calls < self.memory_start:
            return None, None
        return self.memory.entries(like)

    def _for_memory(self, batch: Batch, momentum: Tensor | None) -> Tensor:
        if momentum is None:
            return batch.features.detach()
        return gather_constants(unit_vectors(momentum.to(batch.features)), batch)

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin:g}, memory_start={self.memory_start}, memory_weight={self.memory_weight:g}, "
            f"reduction={self.reduction!r}"
        )
