"""Momentum embeddings on their way from an extractor to the memory of a loss.

OML calls ``criterion(embeddings, labels)``: a second tensor has no seat. An attribute of the tensor would be gone after
``.float()`` or one of ``DistributedDataParallel``'s clones, so it rides in the autograd graph: a node that changes
nothing holds it, and a loss walks back to that node over the few operations that keep an embedding what it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger(__name__)

_HELD = "momentum_embeddings"
_MOST_STEPS = 32
# Copies, casts and reshapes; the last is DistributedDataParallel's with find_unused_parameters=True.
_KEEPING = {"CloneBackward0", "ToCopyBackward0", "ViewBackward0", "UnsafeViewBackward0", "AliasBackward0"}
_KEEPING |= {"ReshapeAliasBackward0", "SqueezeBackward0", "_DDPSinkBackward"}
_NORM_OF_F_NORMALIZE = ("ExpandBackward0", "ClampMinBackward0", "LinalgVectorNormBackward0")


def attach(embeddings: Tensor, momentum: Tensor) -> Tensor:
    """The same embeddings, with the momentum embeddings of the same images behind them.

    Where no gradients are recorded (``torch.no_grad``) nothing is attached. Embeddings of a frozen model ask for a
    gradient afterwards, since without a graph nothing could be attached; their parameters get none.

    Args:
        embeddings: ``(B, D)``.
        momentum: ``(B, D)``, constants.
    """
    if not torch.is_grad_enabled():
        return embeddings
    if not embeddings.requires_grad:
        embeddings = embeddings.detach().requires_grad_()
    return _Holder.apply(embeddings, momentum.detach())


def find(embeddings: Tensor) -> Tensor | None:
    """The momentum embeddings behind ``embeddings``, ``(B, D)``; ``None`` without any, or where they are out of reach.

    Reached through copies, casts, reshapes, DDP's clones and ``F.normalize``, which is repeated on them.
    """
    node, output, normalised = embeddings.grad_fn, embeddings.output_nr, False
    for _ in range(_MOST_STEPS):
        if node is None:
            return None
        momentum: Tensor | None = getattr(node, _HELD, None)
        if momentum is not None:
            return F.normalize(momentum, dim=-1) if normalised else momentum
        if node.name() == "_DDPSinkBackward":
            node, output = node.next_functions[output]
        elif node.name() in _KEEPING or _is_normalize(node):
            normalised = normalised or node.name() == "DivBackward0"
            node, output = node.next_functions[0]
        else:
            return None
    return None


def mapped(function: Callable[[Tensor], Tensor], embeddings: Tensor) -> Tensor:
    """``function`` of ``embeddings``, and of the momentum embeddings behind them."""
    momentum = find(embeddings)
    if momentum is None:
        return function(embeddings)
    with torch.no_grad():
        of_momentum = function(momentum)
    return attach(function(embeddings), of_momentum)


class MemorySource:
    """Tells a loss which embeddings its memory stores, and tells the user once in the log.

    Args:
        loss: Name of the loss, for the log.
    """

    def __init__(self, loss: str) -> None:
        self.loss = loss
        self._told: bool | None = None

    def momentum_of(self, embeddings: Tensor) -> Tensor | None:
        """Momentum embeddings ``(B, D)`` to store, or ``None``: store ``embeddings`` themselves.

        Raises:
            ValueError: They have another shape than ``embeddings``.
        """
        momentum = find(embeddings)
        if self._told is not (momentum is not None):
            self._told = momentum is not None
            self._tell(embeddings, momentum)
        if momentum is not None and momentum.shape != embeddings.shape:
            raise ValueError(
                f"The shape of the momentum embeddings is {tuple(momentum.shape)}, expected the embeddings' shape "
                f"{tuple(embeddings.shape)}."
            )
        return momentum

    def _tell(self, embeddings: Tensor, momentum: Tensor | None) -> None:
        if momentum is not None:
            logger.info("%s: the memory stores the embeddings of the moving average", self.loss)
        elif _is_behind(embeddings):
            logger.warning(
                "%s: the memory stores the trained embeddings, not those of the moving average. Between "
                "extractor_with_momentum and the loss stands an operation that is not repeated on the latter, e.g. a "
                "head: let extractor_with_momentum be around it.",
                self.loss,
            )
        else:
            logger.info("%s: the memory stores the trained embeddings", self.loss)


class _Holder(torch.autograd.Function):
    """A copy whose node in the graph holds the momentum embeddings."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, momentum: Tensor) -> Tensor:
        setattr(ctx, _HELD, momentum)
        return embeddings.clone()  # not a view: torch forbids in-place operations on a view from here

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _is_normalize(node: Any) -> bool:
    """Whether a node is the division in ``F.normalize``: x / max(|x|, eps), row by row."""
    if node.name() != "DivBackward0":
        return False
    (numerator, _), (divisor, _) = node.next_functions
    norm = None
    for name in _NORM_OF_F_NORMALIZE:
        if divisor is None or divisor.name() != name:
            return False
        norm, divisor = divisor, divisor.next_functions[0][0]
    return divisor is numerator and norm is not None and norm._saved_ord == 2 and norm._saved_dim != (0,)


def _is_behind(embeddings: Tensor) -> bool:
    """Whether momentum embeddings are anywhere in the graph of ``embeddings``."""
    seen, waiting = set(), [embeddings.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        if getattr(node, _HELD, None) is not None:
            return True
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]
    return False
