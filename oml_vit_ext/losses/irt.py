"""The whole loss of IRT_R: contrastive with a cross-batch memory, plus the entropy regulariser."""

from __future__ import annotations

from torch import Tensor

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.common.distributed import Batch
from oml_vit_ext.losses.contrastive_xbm import ContrastiveXBMLoss
from oml_vit_ext.losses.entropy import entropy_loss


class IRTLoss(ContrastiveXBMLoss):
    """L = contrastive + entropy_weight * entropy (arXiv 2102.05644, section 3).

    Args:
        margin: See ``ContrastiveXBMLoss``, as for the next three and ``reduction``.
        memory_size: Embeddings kept.
        memory_start: Training calls before the memory is used.
        memory_weight: Weight of a pair with a memory entry.
        entropy_weight: The paper's lambda: 0.7 for SOP, CUB-200 and In-Shop.
        reduction: ``"anchors"`` or ``"nonzero_pairs"``.
        entropy_memory: Search the entropy's nearest neighbours in the memory as well, among entries of other labels.
            Not in the paper.
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
        *,
        entropy_memory: bool = False,
    ) -> None:
        super().__init__(margin, memory_size, memory_start, memory_weight, reduction)
        self.entropy_weight = check_number("entropy_weight", entropy_weight)
        self.entropy_memory = entropy_memory

    def batch_loss(self, batch: Batch) -> Tensor:
        contrastive = super().batch_loss(batch)
        memory, memory_labels = self.used_memory(batch.features) if self.entropy_memory else (None, None)
        entropy = entropy_loss(batch.features, labels=batch.labels, memory=memory, memory_labels=memory_labels)
        self.last_logs |= {"entropy": entropy.loss.detach(), "mean_nn_distance": entropy.mean_nn_distance}
        return contrastive + self.entropy_weight * entropy.loss

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, entropy_weight={self.entropy_weight:g}, entropy_memory={self.entropy_memory}"
