"""An extractor beside a slowly moving copy of itself, whose descriptors fill the losses' memory.

IRT's memory for In-Shop is such a one (El-Nouby et al., arXiv 2102.05644), after MoCo (He et al., arXiv 1911.05722).
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from oml.interfaces.models import IExtractor, IFreezable
from torch import Tensor

from oml_vit_ext.common.messages import unknown_name
from oml_vit_ext.extractors.weights import StateDict, read_state_dict

logger = logging.getLogger(__name__)

PREDICT_WITH = ("extractor", "momentum")
_TRAINED, _COPY = "extractor.", "momentum_extractor."


class ExtractorWithMomentum(IExtractor, IFreezable):
    """An extractor and an exponential moving average (EMA) of its weights, ``copy <- m * copy + (1 - m) * extractor``.

    In training mode the descriptors ``(B, feat_dim)`` are the extractor's, and carry an attribute
    ``momentum_features`` ``(B, feat_dim)``: the copy's descriptors of the same batch, without gradient. The losses of
    this package store these in their memory. In evaluation mode, and from ``extract``, only one of the two is used.

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
        super().__init__()
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 <= momentum < 1:
            raise ValueError(f"momentum must be a number from 0 to below 1 (the paper's is 0.999), got {momentum!r}.")
        if predict_with not in PREDICT_WITH:
            raise ValueError(unknown_name("predict_with", predict_with, PREDICT_WITH))
        self.momentum = float(momentum)
        self.predict_with = predict_with
        self.extractor = extractor
        self.momentum_extractor = copy.deepcopy(extractor).requires_grad_(False).eval()
        if weights is not None:
            self._load(Path(weights).expanduser(), allow_pickle)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)``, in training mode with the attribute ``momentum_features``."""
        if not self.training:
            return self.extract(x)
        if torch.is_grad_enabled():
            self._move_copy()
        features: Any = self.extractor(x)
        with torch.no_grad():
            features.momentum_features = self.momentum_extractor(x)
        return features

    def extract(self, x: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, feat_dim)`` with the one that ``predict_with`` names."""
        return (self.momentum_extractor if self.predict_with == "momentum" else self.extractor).extract(x)

    @property
    def feat_dim(self) -> int:
        return self.extractor.feat_dim

    def freeze(self) -> None:
        _freezable(self.extractor).freeze()

    def unfreeze(self) -> None:
        _freezable(self.extractor).unfreeze()

    def train(self, mode: bool = True) -> ExtractorWithMomentum:
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

    def _load(self, path: Path, allow_pickle: bool) -> None:
        """Both copies from a checkpoint, under whatever prefix they stand; the rest, e.g. a criterion, is left out."""
        if not path.is_file():
            raise FileNotFoundError(f"weights {str(path)!r}: there is no such file (looked for {path.absolute()}).")
        state = _both_copies(read_state_dict(path, allow_pickle=allow_pickle), path)
        expected = self.state_dict()
        missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
        wrong_shape = sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape)
        if missing or unexpected or wrong_shape:
            raise RuntimeError(
                f"weights {str(path)!r} do not fit this extractor and its copy: {len(missing)} missing, "
                f"{len(unexpected)} unexpected, {len(wrong_shape)} of another shape, the first being "
                f"{(missing + unexpected + wrong_shape)[0]!r}. Was it trained with another architecture?"
            )
        self.load_state_dict(state)

    def extra_repr(self) -> str:
        return f"momentum={self.momentum:g}, predict_with={self.predict_with!r}"


def _both_copies(state: StateDict, path: Path) -> StateDict:
    """The entries of an extractor and of its copy, without their common prefix."""
    anchor = next((key for key in sorted(state) if key.startswith(_COPY) or f".{_COPY}" in key), None)
    if anchor is None:
        raise RuntimeError(
            f"weights {str(path)!r} hold no moving average (no key has the part {_COPY!r}): expected a checkpoint that "
            f"was trained with extractor_with_momentum. Weights of a plain extractor belong to the inner one "
            f"(in YAML: extractor.args.extractor.args.weights)."
        )
    prefix = anchor[: anchor.index(_COPY)]
    parts = (prefix + _TRAINED, prefix + _COPY)
    outside = sorted(key for key in state if not key.startswith(parts))
    if outside:
        logger.info("weights %s: %d entries are not part of the extractor, e.g. %s", path, len(outside), outside[0])
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(parts)}


def _freezable(extractor: IExtractor) -> IFreezable:
    if not isinstance(extractor, IFreezable):
        raise TypeError(f"{type(extractor).__name__} cannot be frozen: expected an extractor that is IFreezable too.")
    return extractor
