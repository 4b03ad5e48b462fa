"""Trains a head on embeddings that are there already: no images, no transformer, seconds on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted
from oml_vit_ext.common.progress import progress
from oml_vit_ext.extractors.head import make_head
from oml_vit_ext.extractors.pca import fit_pca
from oml_vit_ext.optimizers.adamw_groups import AdamWGroups


def fit_head(
    embeddings: Tensor | NDArray[np.float32],
    labels: Sequence[Any] | NDArray[Any],
    criterion: nn.Module,
    dims: Sequence[int] = (128,),
    *,
    steps: int = 500,
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    criterion_lr_factor: float = 10.0,
    n_labels: int = 16,
    n_instances: int = 4,
    seed: int = 0,
    verbose: bool = False,
) -> nn.Sequential:
    """A head for ``ExtractorWithHead``, trained with any criterion on batches of ``n_labels`` times ``n_instances``.

    A linear head starts as the first principal components of the embeddings, an MLP at random. AdamW, the learning
    rate falls to zero along a cosine.

    Args:
        embeddings: ``(N, D)``, finite.
        labels: N of any kind; the criterion gets their numbers, from 0, in ascending order.
        criterion: Called with ``(B, dims[-1])`` embeddings of length 1, and labels ``(B,)``. It is trained, too.
        dims: Widths of the layers: ``[128]`` is linear, ``[512, 128]`` an MLP.
        steps: Batches.
        lr, weight_decay: Of the head.
        criterion_lr_factor: Learning rate of the criterion's parameters as a multiple of ``lr``.
        n_labels, n_instances: Of a batch. A label with fewer embeddings gives some of them several times.
        seed: Of the random numbers that are drawn here; those of the process stay as they are.
        verbose: Show progress.

    Returns:
        The head, in evaluation mode, on the CPU.

    Raises:
        ValueError: Wrong shapes or numbers, embeddings that are not finite, or fewer than two labels with two
            embeddings.

    >>> from oml_vit_ext.losses import ContrastiveXBMLoss
    >>> head = fit_head(torch.randn(12, 8), [0, 1, 2] * 4, ContrastiveXBMLoss(), dims=[2], steps=3, n_labels=2)
    >>> head(torch.rand(5, 8)).shape
    torch.Size([5, 2])
    """
    x = torch.as_tensor(embeddings).detach().cpu().float()
    numbers = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    if x.ndim != 2 or len(numbers) != len(x):
        raise ValueError(
            f"Embeddings of shape {tuple(x.shape)} and {counted(len(numbers), 'label')} were given, expected (N, "
            f"D) and N labels."
        )
    if not torch.isfinite(x).all():
        raise ValueError(
            f"NaN or infinity is in {int((~x.isfinite().all(dim=1)).sum())} of {counted(len(x), 'embedding')}."
        )
    steps = check_whole("steps", steps, 1)
    batches = _batches(numbers, check_whole("n_labels", n_labels, 2), check_whole("n_instances", n_instances, 2), seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make_head(x.shape[1], dims)
        if len(dims) == 1 and dims[0] <= min(x.shape):
            _start_as_pca(head, x)
        optimizer = AdamWGroups(
            [{"params": head.parameters()}, {"params": criterion.parameters()}],
            lr=lr,
            criterion_lr_factor=criterion_lr_factor,
            weight_decay=weight_decay,
        )
        schedule = CosineAnnealingLR(optimizer, steps)
        y = torch.from_numpy(numbers.astype(np.int64))
        head.train()
        criterion.train()
        for _ in progress(range(steps), desc="Fitting the head", unit=" batches", verbose=verbose):
            rows = next(batches)
            loss = criterion(nn.functional.normalize(head(x[rows]), dim=-1), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


def _start_as_pca(head: nn.Sequential, embeddings: Tensor) -> None:
    (layer,) = (part for part in head if isinstance(part, nn.Linear))
    pca = fit_pca(embeddings, layer.out_features)
    with torch.no_grad():
        layer.weight.copy_(pca.components)
        layer.bias.copy_(-pca.components @ pca.mean)


def _batches(labels: NDArray[np.int64], n_labels: int, n_instances: int, seed: int) -> Iterator[Tensor]:
    """Rows of batches without end, of labels that occur at least twice."""
    ends = np.cumsum(np.bincount(labels))
    rows_of = [rows for rows in np.split(np.argsort(labels, kind="stable"), ends[:-1]) if len(rows) > 1]
    if len(rows_of) < 2:
        raise ValueError(
            f"{counted(len(rows_of), 'label has', 'labels have')} two embeddings or more, expected at least 2: there "
            f"is nothing to compare."
        )
    random = np.random.default_rng(seed)

    def draw() -> Iterator[Tensor]:
        while True:
            chosen = random.choice(len(rows_of), min(n_labels, len(rows_of)), replace=False)
            rows = [
                random.choice(rows_of[label], n_instances, replace=len(rows_of[label]) < n_instances)
                for label in chosen
            ]
            yield torch.from_numpy(np.concatenate(rows))

    return draw()
