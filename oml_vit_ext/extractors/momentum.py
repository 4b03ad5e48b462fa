"""An extractor beside a slowly moving copy of itself, whose embeddings fill the losses' memory.

IRT's memory for In-Shop is such a one (El-Nouby et al., arXiv 2102.05644), after MoCo (He et al., arXiv 1911.05722).
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from oml.interfaces.models import IExtractor
from torch import Tensor

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.common.momentum_embeddings import attach
from oml_vit_ext.extractors.momentum_weights import load_both
from oml_vit_ext.extractors.wrapped import WrappedExtractor

PREDICT_WITH = ("extractor", "momentum")


class ExtractorWithMomentum(WrappedExtractor):
    """An extractor and an exponential moving average (EMA) of its weights, ``copy <- m * copy + (1 - m) * extractor``.

    In training mode the embeddings ``(B, feat_dim)`` are the extractor's, and the copy's embeddings of the same batch
    travel behind them in the autograd graph. The losses of this package store these in their memory, and say in the
    log whether they found them: an ``ExtractorWithPCA`` around this extractor, copies, casts and ``F.normalize`` let
    them pass, another head does not. In evaluation mode, and from ``extract``, only one of the two is used.

    The copy moves at the beginning of a forward pass in training mode with gradients (MoCo, algorithm 1), towards the
    weights that this pass uses: at the first step both are equal, and a run that is resumed from a checkpoint goes on
    exactly. With gradients accumulated over k batches it moves k times per optimiser step: use the k-th root of
    ``momentum``. The copy is always in evaluation mode and has no gradients, so no optimiser, weight decay included,
    touches it, and ``DistributedDataParallel`` leaves it out; all processes move it alike. Buffers, such as running
    statistics, are copied as they are.

    A checkpoint holds both. ``weights`` of this class reads both back; ``weights`` of the plain extractor of this
    package (``irt``) picks the trained one. ``torch.save(model.momentum_extractor.state_dict(), path)`` writes the copy
    alone, for the plain extractor as well.

    Args:
        extractor: The extractor to train, e.g. an ``IRTExtractor``. The copy begins as equal to it.
        momentum: m above, from 0 to below 1; the paper's is 0.999.
        predict_with: Which one to use in evaluation mode: ``extractor``, the trained one, or ``momentum``, its average.
        weights: A checkpoint of OML that was trained with this class, or ``None``.
        allow_pickle: Read ``weights`` that hold more than tensors; only a file that you trust.

    Raises:
        ValueError: ``momentum`` or ``predict_with`` is not valid.
        FileNotFoundError, RuntimeError: The file of ``weights`` is missing, broken, holds no copy, or does not fit.

    >>> from oml_vit_ext.extractors import IRTExtractor
    >>> irt = IRTExtractor(None, "vit_tiny_patch16_224", timm_args={"depth": 1, "img_size": 32})
    >>> model = ExtractorWithMomentum(irt, momentum=0.99).train()
    >>> model(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 192])
    """

    def __init__(
        self,
        extractor: IExtractor,
        momentum: float = 0.999,
        *,
        predict_with: str = "extractor",
        weights: str | Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        super().__init__(extractor)
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum!r}, expected a number from 0 to below 1 (the paper's is 0.999).")
        if predict_with not in PREDICT_WITH:
            raise ValueError(unknown_name("predict_with", predict_with, PREDICT_WITH))
        self.momentum = float(momentum)
        self.predict_with = predict_with
        self.momentum_extractor = copy.deepcopy(extractor).requires_grad_(False).eval()
        if weights is not None:
            load_both(self, weights, allow_pickle=allow_pickle)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)``, in training mode with the copy's embeddings behind them."""
        if not self.training:
            return self.extract(x)
        if torch.is_grad_enabled():
            self._move_copy()
        with torch.no_grad():
            momentum_embeddings = self.momentum_extractor(x)
        return attach(self.extractor(x), momentum_embeddings)

    def extract(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)`` with the one that ``predict_with`` names."""
        return self.used.extract(x)

    @property
    def used(self) -> IExtractor:
        """The one that ``predict_with`` names."""
        return self.momentum_extractor if self.predict_with == "momentum" else self.extractor

    def train(self, mode: bool = True) -> ExtractorWithMomentum:
        """Training or evaluation mode; the copy stays in the latter."""
        super().train(mode)
        self.momentum_extractor.eval()  # no dropout, no drop path: the memory's entries are comparable
        return self

    @torch.no_grad()
    def _move_copy(self) -> None:
        for ours, theirs in zip(self.momentum_extractor.parameters(), self.extractor.parameters(), strict=True):
            if ours.dtype in (torch.float16, torch.bfloat16):
                raise TypeError(
                    f"The moving average is in {ours.dtype}, in which steps of {1 - self.momentum:.2g} are lost: keep "
                    f"the weights in float32 and use mixed precision (precision: bf16-mixed)."
                )
            ours.lerp_(theirs, 1 - self.momentum)
        for buffer, current in zip(self.momentum_extractor.buffers(), self.extractor.buffers(), strict=True):
            buffer.copy_(current)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum:g}, predict_with={self.predict_with!r}"
