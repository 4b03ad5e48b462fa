"""The contrastive loss with a cross-batch memory, as a criterion of OML's pipelines (IRT_L)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.distributed import Batch, gather_constants, sum_over_ranks
from oml_vit_ext.common.momentum_embeddings import MemorySource
from oml_vit_ext.losses.contrastive import ContrastiveResult, check_reduction, contrastive_loss
from oml_vit_ext.losses.inputs import unit_batch, unit_vectors
from oml_vit_ext.losses.memory import FeatureMemory


class ContrastiveXBMLoss(nn.Module):
    """``contrastive_loss`` of a batch and of the batches before it (arXiv 2102.05644, section 3.1, and 1912.06798).

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

    Raises:
        ValueError: An argument is out of its range, or ``reduction`` is unknown.

    >>> import torch
    >>> criterion = ContrastiveXBMLoss(margin=0.5, memory_size=1000)
    >>> criterion(torch.eye(4), [0, 0, 1, 1])  # each anchor's one positive pair costs 1 - 0
    tensor(1.)
    >>> len(criterion.memory)
    4
    >>> criterion(torch.eye(4), [0, 0, 1, 1])  # the same in the memory, where an anchor meets itself at no cost
    tensor(2.)
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
        self.margin = check_number("margin", margin, high=1.0)
        self.memory_start = check_whole("memory_start", memory_start)
        self.memory_weight = check_number("memory_weight", memory_weight)
        self.reduction = check_reduction(reduction)
        self.memory = FeatureMemory(check_whole("memory_size", memory_size))
        self._memory_source = MemorySource(type(self).__name__)
        self.last_logs: dict[str, Tensor | float] = {}

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """The loss of a batch, which then enters the memory; writes ``last_logs``.

        Args:
            features: (B, D) embeddings of any length; they are normalised here.
            labels: (B,) whole numbers.

        Returns:
            The scalar loss, in float32 (float64 for float64 embeddings).

        Raises:
            ValueError: Wrong shapes or types, or embeddings that are not finite (``inputs.check_batch``).
        """
        batch = unit_batch(features, labels, across_ranks=self.training)
        result = self.contrastive(batch)
        self.last_logs = self.contrastive_logs(result, batch)
        self.remember(batch, features)
        return result.loss

    def contrastive(self, batch: Batch) -> ContrastiveResult:
        """``contrastive_loss`` of this process's rows of a batch beside the memory as it is; changes nothing."""
        own = slice(batch.start, batch.stop)
        is_used = len(self.memory) > 0 and self.memory.n_calls >= self.memory_start
        memory, memory_labels = self.memory.entries(batch.features) if is_used else (None, None)
        return contrastive_loss(
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

    def contrastive_logs(self, result: ContrastiveResult, batch: Batch) -> dict[str, Tensor | float]:
        """The loss, active negatives for each row of the batch, and the part of the memory that is filled, 0 to 1."""
        return {
            "contrastive": result.loss.detach(),
            "active_negatives": result.n_active_negatives / len(batch.features),
            "memory_fill": len(self.memory) / max(1, self.memory.size),
        }

    def remember(self, batch: Batch, features: Tensor) -> None:
        """Stores a batch in the memory when training; ``features`` are those that ``forward`` was given."""
        if self.training:
            momentum = self._memory_source.momentum_of(features) if self.memory.size > 0 else None
            self.memory.enqueue(self._for_memory(batch, momentum), batch.labels)

    def _for_memory(self, batch: Batch, momentum: Tensor | None) -> Tensor:
        if momentum is None:
            return batch.features.detach()
        return gather_constants(unit_vectors(momentum.to(batch.features)), batch)

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin:g}, memory_start={self.memory_start}, memory_weight={self.memory_weight:g}, "
            f"reduction={self.reduction!r}"
        )
