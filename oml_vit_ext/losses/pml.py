"""Any loss of pytorch-metric-learning as a criterion of OML's pipelines, memory included.

Only building a ``PMLLoss`` imports that library, which takes a second: nobody else should wait for it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.distributed import gather_batch, gather_constants
from oml_vit_ext.common.momentum_embeddings import MemorySource
from oml_vit_ext.losses.inputs import check_batch
from oml_vit_ext.losses.memory import FeatureMemory

Part = Mapping[str, Any]


class PMLLoss(nn.Module):
    """A loss of pytorch-metric-learning with its orthogonal parts, each given as ``{name, args}``.

    Names are the library's class names; where a part's argument is itself a distance, reducer or regularizer it is
    written the same way. Parameters of the loss (ArcFace's class centres) are parameters of this module.

    The memory does what the library's ``CrossBatchMemory`` does: the batch is compared with itself, as constants, and
    with the ``memory_size`` embeddings before it. Unlike there it is saved whole, is filled in training mode only,
    works on several processes, and no image is its own positive (``pml_references.py`` says where that matters). Of
    ``ExtractorWithMomentum`` it stores the moving average's embeddings; the log tells once which it stores. The loss,
    its gradient and the memory are those of the concatenated batch.

    Args:
        loss: For example ``{"name": "MultiSimilarityLoss", "args": {"alpha": 2}}``.
        distance: Replaces the loss's own distance.
        reducer: Replaces the loss's own reducer.
        miner: Picks the pairs or triplets that the loss sees.
        regularizer: On the embeddings; or on the class centres for those regularizers that are about centres.
        memory_size: Past embeddings to compare with; 0 means no memory.

    Raises:
        ValueError: An unknown name or argument of a part, with the nearest valid ones; values that a part refuses; or
            a memory for a loss that does not compare embeddings with one another, for one that draws
            ``triplets_per_anchor``, or for parts that cannot work together.

    Source: arXiv 2008.09164 (the library), arXiv 1912.06798 (the memory).

    >>> loss = {"name": "TripletMarginLoss", "args": {"margin": 0.2}}
    >>> criterion = PMLLoss(loss, miner={"name": "BatchHardMiner"}, memory_size=100)
    >>> criterion(torch.eye(4), [0, 0, 1, 1])  # all equally far from one another
    tensor(0.2000)
    >>> len(criterion.memory)
    4
    """

    criterion_name = "pml"

    def __init__(
        self,
        loss: Part,
        distance: Part | None = None,
        reducer: Part | None = None,
        miner: Part | None = None,
        regularizer: Part | None = None,
        memory_size: int = 0,
    ) -> None:
        from oml_vit_ext.losses.pml_parts import build, is_weight_regularizer, names_with_memory

        super().__init__()
        replaced = {"distance": distance, "reducer": reducer}
        args = {name: part for name, part in replaced.items() if part is not None}
        if regularizer is not None:
            args["weight_regularizer" if is_weight_regularizer(regularizer) else "embedding_regularizer"] = regularizer
        self.loss = build("loss", loss, args)
        _own_histogram(self.loss)
        self.miner = None if miner is None else build("miner", miner)
        self.memory = FeatureMemory(check_whole("memory_size", memory_size))
        name = type(self.loss).__name__
        if memory_size > 0 and name not in names_with_memory():
            raise ValueError(
                f"memory_size is {memory_size}, expected 0 for {name}, which does not compare with other embeddings; "
                f"losses that take a memory: {', '.join(names_with_memory())}."
            )
        if memory_size > 0 and getattr(self.loss, "triplets_per_anchor", "all") != "all":
            raise ValueError(
                f"triplets_per_anchor is {self.loss.triplets_per_anchor!r}, expected 'all' with a memory "
                f"(memory_size is {memory_size}): {name} draws triplets from a batch alone. Choose them with a miner."
            )
        if memory_size > 0:
            chosen = [part["name"] for part in (loss, distance, reducer, miner) if part is not None]
            self._try_with_references(", ".join(chosen))
        # The library's own attribute of this name is a statistic, zero in some of its losses.
        self._n_classes: int | None = (loss.get("args") or {}).get("num_classes")
        self._memory_source = MemorySource(f"{type(self).__name__} ({name})")
        self.last_logs: dict[str, float] = {}

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """The loss of a batch, which then enters the memory; writes ``last_logs`` (``memory_fill``, ``mined``).

        Args:
            features: (B, D) embeddings, as the loss wants them: most of the library's distances normalise.
            labels: (B,) whole numbers; from 0 to ``num_classes - 1`` for a loss that has classes.

        Returns:
            The scalar loss, in float32 (float64 for float64 embeddings).

        Raises:
            ValueError: Wrong shapes or types, embeddings that are not finite (``inputs.check_batch``), or, on the CPU,
                labels beyond the loss's classes.
        """
        features, labels = check_batch(features, labels)
        fills_memory = self.training and self.memory.size > 0
        momentum = self._memory_source.momentum_of(features) if fills_memory else None
        self._check_classes(labels)
        batch = gather_batch(features, labels, across_ranks=self.training)
        with torch.autocast(features.device.type, enabled=False):
            loss = self._batch_loss(batch.features, batch.labels)
        for buffer in self.loss.buffers():
            buffer.detach_()  # that histogram would keep every past step's graph alive
        self.last_logs["memory_fill"] = len(self.memory) / max(1, self.memory.size)
        if fills_memory:
            entries = batch.features.detach()
            if momentum is not None:
                entries = gather_constants(momentum.to(features), batch)
            self.memory.enqueue(entries, batch.labels)
        return loss

    def _batch_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        if self.memory.size == 0:
            mined = None if self.miner is None else self.miner(features, labels)
            self._log_mined(mined)
            loss: Tensor = self.loss(features, labels, mined)
            return loss
        from oml_vit_ext.losses.pml_references import all_pairs, other_images

        past, past_labels = self.memory.entries(features)
        references = torch.cat([features.detach(), past])  # the batch first: see pml_references.py
        reference_labels = torch.cat([labels, past_labels])
        if self.miner is None:
            mined = all_pairs(labels, reference_labels)
        else:
            mined = other_images(self.miner(features, labels, references, reference_labels))
            self._log_mined(mined)
        loss = self.loss(features, labels, mined, references, reference_labels)
        return loss

    def _try_with_references(self, chosen: str) -> None:
        """A combination that cannot be computed is refused now, not when the miner finds its first tuple."""
        from oml_vit_ext.losses.pml_references import all_pairs

        features, labels = torch.arange(48.0).sin().reshape(6, 8), torch.tensor([0, 0, 1, 1, 0, 1])
        loss, miner = copy.deepcopy(self.loss), copy.deepcopy(self.miner)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            try:
                if miner is not None:
                    miner(features[:4], labels[:4], features, labels)
                loss(features[:4], labels[:4], all_pairs(labels[:4], labels), features, labels)
            except Exception as error:  # the library has no one kind for this
                raise ValueError(
                    f"memory_size is {self.memory.size}, expected 0 for {chosen}: together they cannot compute a loss "
                    f"({type(error).__name__}: {error})."
                ) from error

    def _log_mined(self, mined: Sequence[Tensor] | None) -> None:
        if mined is not None:
            self.last_logs["mined"] = float(len(mined[0]) if len(mined) == 3 else len(mined[0]) + len(mined[2]))

    def _check_classes(self, labels: Tensor) -> None:
        # Read on the CPU only: elsewhere it would stall the device at every step.
        n_classes = self._n_classes
        if n_classes is None or labels.device.type != "cpu":
            return
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f"labels is from {low} to {high}, expected from 0 to {n_classes - 1} for {type(self.loss).__name__} "
                f"with num_classes={n_classes}."
            )


def _own_histogram(loss: nn.Module) -> None:
    """Makes the running histogram of ``DynamicSoftMarginLoss`` a part of its state, which the library does not save."""
    histogram = getattr(loss, "hist_", None)
    if isinstance(histogram, Tensor):
        del loss.hist_
        loss.register_buffer("hist_", histogram)
