"""AdamW with a learning rate and a weight decay that fit each kind of parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import nn

from oml_vit_ext.common.checks import check_number
from oml_vit_ext.optimizers.parameter_groups import parameter_groups


class AdamWGroups(torch.optim.AdamW):
    """AdamW that trains proxies and class centres faster, early layers more slowly, and lets norms and biases be.

    A step of a group has the learning rate ``lr * lr_scale``. Schedulers change ``lr`` alone, so every one of them
    works, those included that give all groups the same (``one_cycle``, ``cyclic``); the ``lr`` in the log is that of
    the last layer.

    Sources: faster proxies, Kim et al., Proxy Anchor Loss, arXiv 2003.13911 (a factor of 100 in the authors' code);
    layer-wise decay, BEiT, arXiv 2106.08254.

    Args:
        params: As OML's pipelines give them: a list of two groups, the extractor's parameters and the criterion's, or
            the parameters of a model alone.
        lr: Learning rate of the last layer. It counts, not the one in the groups of ``params``.
        criterion_lr_factor: Learning rate of the criterion's parameters as a multiple of ``lr``.
        layer_decay: Each layer's learning rate is this multiple of that of the layer behind it, 0 to 1; 1 treats all
            alike. For extractors of this package.
        weight_decay: Of matrices; none for norms, biases, position embeddings and CLS tokens.
        betas, eps: AdamW's.

    Raises:
        ValueError: A number is out of its range, there are more than two groups, or ``layer_decay`` is below 1 for a
            model whose layers are not known.

    >>> model, criterion = nn.Linear(4, 2), nn.Embedding(3, 2)
    >>> optimizer = AdamWGroups([{"params": model.parameters()}, {"params": criterion.parameters()}], lr=1e-3)
    >>> [(group["lr_scale"], group["weight_decay"]) for group in optimizer.param_groups]
    [(1.0, 0.01), (1.0, 0.0), (100.0, 0.01)]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        criterion_lr_factor: float = 100.0,
        layer_decay: float = 1.0,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        model, criterion = _model_and_criterion(params)
        groups = parameter_groups(
            model,
            criterion,
            weight_decay=check_number("weight_decay", weight_decay),
            criterion_lr_factor=check_number("criterion_lr_factor", criterion_lr_factor),
            layer_decay=check_number("layer_decay", layer_decay, high=1.0),
        )
        first, second = betas
        super().__init__(groups, lr=check_number("lr", lr), betas=(first, second), eps=eps, weight_decay=weight_decay)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step, each group with its own learning rate."""
        with torch.enable_grad():
            loss = None if closure is None else closure()  # before: it may look at the learning rates
        with self._scaled():
            super().step()
        return loss

    @contextmanager
    def _scaled(self) -> Iterator[None]:
        before = [group["lr"] for group in self.param_groups]
        try:
            for group in self.param_groups:
                group["lr"] = group["lr"] * group["lr_scale"]
            yield
        finally:
            for group, lr in zip(self.param_groups, before, strict=True):
                group["lr"] = lr


def _model_and_criterion(params: Iterable[Any]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    entries = list(params)
    if not entries or not isinstance(entries[0], Mapping):
        return entries, []
    if len(entries) > 2:
        raise ValueError(
            f"params is a list of {len(entries)} groups, expected two: the extractor's parameters and the criterion's."
        )
    parts = [list(group["params"]) for group in entries]
    return parts[0], parts[1] if len(parts) == 2 else []
