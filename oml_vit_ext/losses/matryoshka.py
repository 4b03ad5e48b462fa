"""Embeddings whose first dimensions are embeddings too: any criterion, on several prefixes at once.

Source: Kusupati et al., Matryoshka Representation Learning, arXiv 2205.13147, eq. 1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oml_vit_ext.common.checks import check_number, check_whole
from oml_vit_ext.common.momentum_embeddings import mapped
from oml_vit_ext.losses.inputs import check_batch, unit_vectors

_WIDTH = "dim"  # what stands for the width of a prefix in the arguments of the criterion


def prefix(embeddings: Tensor, dim: int) -> Tensor:
    """The first ``dim`` dimensions of embeddings ``(B, D)``, scaled to the length that the whole embedding has.

    >>> prefix(torch.tensor([[0.6, 0.0, 0.8]]), 2)
    tensor([[1., 0.]])
    """
    return unit_vectors(embeddings[:, :dim]) * embeddings.norm(dim=1, keepdim=True)


class MatryoshkaLoss(nn.Module):
    """``L = sum_d weight_d * criterion(first d dimensions)``, with a criterion of its own for each d.

    Each prefix is scaled to the length of the whole embedding: to 1, where embeddings have length 1. Whatever the
    criterion keeps (a memory, proxies, class centres) is kept for each prefix. On several processes the criteria do
    what they do alone.

    Args:
        criterion: ``{"name": ..., "args": {...}}``, any name of OML's registry; or a criterion, which is copied. An
            argument with the value ``"dim"``, at any depth, becomes the width of the prefix: ``embedding_size: dim``.
        dims: Widths of the prefixes, rising. Put the width of the extractor last to train the whole embedding as well.
        weights: One for each width; the paper's are all 1, which is the default.
        label2category: OML's pipelines give it, for criteria that ask for it.

    Raises:
        ValueError: ``dims`` are not rising or below 1, ``weights`` do not go with them, ``criterion`` has another form;
            in a call: embeddings narrower than the largest of ``dims``.

    >>> criterion = MatryoshkaLoss({"name": "contrastive_xbm", "args": {"memory_size": 8}}, dims=[2, 4])
    >>> criterion(torch.eye(4), [0, 0, 1, 1])  # of 4 dimensions: 1; of 2, labels 0 are at right angles, labels 1 vanish
    tensor(2.)
    >>> {name: round(float(value), 2) for name, value in criterion.last_logs.items() if name.startswith("loss")}
    {'loss_2': 1.0, 'loss_4': 1.0}
    """

    criterion_name = "matryoshka"

    def __init__(
        self,
        criterion: Mapping[str, Any] | nn.Module,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        label2category: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dims = [check_whole("dims", dim, 1) for dim in dims]
        if not self.dims or any(a >= b for a, b in zip(self.dims, self.dims[1:])):  # noqa: B905  (pairs of neighbours)
            raise ValueError(f"dims is {list(dims)}, expected rising widths, e.g. [16, 64, 384].")
        given = [1.0] * len(self.dims) if weights is None else list(weights)
        if len(given) != len(self.dims):
            raise ValueError(f"weights is {given}, expected one for each of the {len(self.dims)} dims {self.dims}.")
        self.weights = [check_number("weights", weight) for weight in given]
        self.criteria = nn.ModuleList(_criterion(criterion, dim, label2category) for dim in self.dims)
        self.last_logs: dict[str, Any] = {}

    def forward(self, features: Tensor, labels: Tensor | Sequence[int]) -> Tensor:
        """The weighted sum over the prefixes; ``last_logs`` has each criterion's, with ``_<width>`` behind the name.

        Args:
            features: ``(B, D)``.
            labels: ``(B,)``.
        """
        features, labels = check_batch(features, labels)
        if features.shape[1] < self.dims[-1]:
            raise ValueError(
                f"features is of width {features.shape[1]}, expected at least the largest of dims {self.dims}."
            )
        losses, logs = [], {}
        for dim, weight, criterion in zip(self.dims, self.weights, self.criteria, strict=True):
            loss = criterion(mapped(lambda whole, dim=dim: prefix(whole, dim), features), labels)  # type: ignore[misc]
            losses.append(weight * loss)
            logs[f"loss_{dim}"] = loss.detach()
            logs |= {f"{name}_{dim}": value for name, value in getattr(criterion, "last_logs", {}).items()}
        self.last_logs = logs
        return torch.stack(losses).sum()

    def extra_repr(self) -> str:
        return f"dims={self.dims}, weights={self.weights}"


def _criterion(
    criterion: Mapping[str, Any] | nn.Module, dim: int, label2category: Mapping[Any, Any] | None
) -> nn.Module:
    if isinstance(criterion, nn.Module):
        return copy.deepcopy(criterion)
    if not isinstance(criterion, Mapping) or "name" not in criterion or not set(criterion) <= {"name", "args"}:
        raise ValueError(f"criterion is {criterion!r}, expected the form {{name: ..., args: {{...}}}}.")
    from oml.registry.losses import LOSSES_REGISTRY, get_criterion_by_cfg

    from oml_vit_ext.common.messages import unknown_name

    if criterion["name"] not in LOSSES_REGISTRY:
        raise ValueError(unknown_name("criterion", criterion["name"], LOSSES_REGISTRY))
    args = _with_width(criterion.get("args") or {}, dim)
    runtime: dict[str, Any] = {} if label2category is None else {"label2category": label2category}
    return get_criterion_by_cfg({"name": criterion["name"], "args": args}, **runtime)


def _with_width(value: Any, dim: int) -> Any:
    """A copy of nested arguments, in which ``"dim"`` has become the width."""
    if isinstance(value, Mapping):
        return {key: _with_width(part, dim) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_width(part, dim) for part in value]
    return dim if value == _WIDTH else value
