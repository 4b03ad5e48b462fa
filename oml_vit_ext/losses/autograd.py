"""A value whose gradient is already known, as a node of the autograd graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _LossWithGradient(torch.autograd.Function):
    """Gives a value the gradient that was formed together with it."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(features, gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        features, gradient = ctx.saved_tensors
        return _FinalGradient.apply(grad_output, features, gradient), None, None


class _FinalGradient(torch.autograd.Function):
    """A gradient that refuses to be differentiated.

    ``once_differentiable`` alone would let a gradient penalty pass without a word when the incoming gradient is a
    constant, and treat the slopes' product with the batch as constant too: a wrong second derivative.
    """

    @staticmethod
    def forward(ctx: Any, grad_output: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
        return grad_output * gradient

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError(
            "The contrastive loss cannot be differentiated twice: its gradient is formed in the forward pass. "
            "Leave out create_graph=True."
        )


def with_gradient(value: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
    """``value`` (0-d) as a function of ``features`` (B, D) whose gradient there is ``gradient`` (B, D)."""
    result: Tensor = _LossWithGradient.apply(features, value, gradient)
    return result
