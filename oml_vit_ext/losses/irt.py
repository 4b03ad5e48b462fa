"""The whole loss of IRT_R: contrastive with a cross-batch memory, plus the entropy regulariser."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.losses.contrastive_xbm import ContrastiveXBMLoss
from oml_vit_ext.losses.entropy import entropy_loss
from oml_vit_ext.losses.inputs import unit_batch


class IRTLoss(ContrastiveXBMLoss):
    """L = L_contrastive + entropy_weight * L_KoLeo (arXiv 2102.05644, section 3).

    The first term is that of ``ContrastiveXBMLoss``, memory included; the second, ``entropy_loss``, is about the batch
    alone. On several processes both are those of the batch of all.

    Args:
        margin, memory_size, memory_start, memory_weight, reduction: See ``ContrastiveXBMLoss``.
        entropy_weight: The paper's lambda: 0.7 for SOP, CUB-200 and In-Shop.

    Raises:
        ValueError: An argument is out of its range, or ``reduction`` is unknown.

    >>> import torch
    >>> criterion = IRTLoss(margin=0.5, memory_size=1000, entropy_weight=0.7)
    >>> loss = criterion(torch.eye(4), [0, 0, 1, 1])
    >>> {name: round(float(value), 4) for name, value in criterion.last_logs.items()}
    {'contrastive': 1.0, 'active_negatives': 0.0, 'memory_fill': 0.0, 'entropy': -0.3466, 'mean_nn_distance': 1.4142}
    >>> loss  # 1 - 0.7 * 0.3466
    tensor(0.7574)
    """

    criterion_name = "irt"

    def __init__(
        self,
        margin: float = 0.5,
        memory_size: int = 0,
        memory_start: int = 0,
        memory_weight: float = 1.0,
        entropy_weight: float = 0.7,
        reduction: str = "anchors",
    ) -> None:
        super().__init__(margin, memory_size, memory_start, memory_weight, reduction)
        self.entropy_weight = check_number("entropy_weight", entropy_weight)

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """The loss of a batch, which then enters the memory; writes ``last_logs``, both terms included.

        Args:
            features: (B, D) embeddings of any length; they are normalised here.
            labels: (B,) whole numbers.

        Returns:
            The scalar loss, in float32 (float64 for float64 embeddings).

        Raises:
            ValueError: Wrong shapes or types, or embeddings that are not finite (``inputs.check_batch``).
        """
        batch = unit_batch(features, labels, across_ranks=self.training)
        contrastive = self.contrastive(batch)
        entropy = entropy_loss(batch.features)
        self.last_logs = self.contrastive_logs(contrastive, batch) | entropy.logs()
        self.remember(batch, features)
        return contrastive.loss + self.entropy_weight * entropy.loss

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, entropy_weight={self.entropy_weight:g}"
