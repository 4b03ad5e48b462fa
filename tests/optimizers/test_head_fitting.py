"""A head that is trained on embeddings alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from oml_vit_ext.extractors import fit_pca
from oml_vit_ext.losses import ContrastiveXBMLoss, PMLLoss
from oml_vit_ext.optimizers import fit_head

LOSS = {"name": "SupConLoss", "args": {"temperature": 0.1}}


def clusters(seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """20 labels of 8: what tells them apart is in 4 of 16 dimensions, and small beside the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(160) % 20
    centres = torch.randn(20, 4, generator=generator)
    x = torch.randn(160, 16, generator=generator) * 1.5
    x[:, :4] = centres[labels] + 0.1 * torch.randn(160, 4, generator=generator)
    return x, labels


def right_neighbours(x: Tensor, labels: np.ndarray) -> float:
    x = torch.nn.functional.normalize(x, dim=1)
    similarity = (x @ x.T).fill_diagonal_(-2)
    return float((labels[similarity.argmax(1)] == labels).mean())


def test_it_finds_what_pca_does_not_and_it_holds_for_labels_never_seen():
    x, labels = clusters()
    seen = labels < 14
    head = fit_head(x[seen], labels[seen], PMLLoss(LOSS), [6], steps=100, lr=3e-2, n_labels=14)
    pca = fit_pca(x[seen], 6)
    of_pca = right_neighbours((x[~seen] - pca.mean) @ pca.components.T, labels[~seen])
    assert right_neighbours(head(x[~seen]), labels[~seen]) > 0.9 > 0.5 > of_pca


def test_a_linear_head_starts_as_pca():
    x, labels = clusters()
    head = fit_head(x, labels, ContrastiveXBMLoss(), [4], steps=1, lr=0.0)
    pca = fit_pca(x, 4)
    torch.testing.assert_close(head(x), (x - pca.mean) @ pca.components.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [[4], [8, 4]])
def test_the_seed_decides_and_the_random_numbers_of_the_process_stay(dims: list[int]):
    x, labels = clusters()
    names = np.array([f"label {label:02d}" for label in labels])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = fit_head(x, labels, ContrastiveXBMLoss(), dims, steps=5, seed=3)
    assert torch.rand(1) == expected
    again = fit_head(x.numpy(), names, ContrastiveXBMLoss(), dims, steps=5, seed=3)
    other = fit_head(x, labels, ContrastiveXBMLoss(), dims, steps=5, seed=4)
    assert torch.equal(first(x), again(x)) and not torch.equal(first(x), other(x))


def test_the_criterion_learns_too():
    x, labels = clusters()
    criterion = PMLLoss({"name": "ProxyAnchorLoss", "args": {"num_classes": 20, "embedding_size": 4}})
    before = criterion.loss.proxies.detach().clone()
    fit_head(x, labels * 10 + 7, criterion, [4], steps=2)  # labels reach it as 0 to 19
    assert not torch.equal(criterion.loss.proxies, before)


def test_labels_with_one_embedding_are_left_out_and_few_embeddings_repeat():
    x, _labels = clusters()
    seen: list[list[int]] = []

    class Watching(ContrastiveXBMLoss):
        def forward(self, features: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels.tolist())
            return super().forward(features, labels)

    few = np.array([0, 0, 1, 2, 2, 2, 3, 3])
    fit_head(x[:8], few, Watching(), [2], steps=4, n_labels=3, n_instances=3)
    assert all(sorted(batch) == [0, 0, 0, 2, 2, 2, 3, 3, 3] for batch in seen) and len(seen) == 4


def test_what_cannot_be_fitted():
    x, labels = clusters()
    with pytest.raises(ValueError, match=r"shape \(160, 16\) and 3 labels"):
        fit_head(x, [0, 1, 2], ContrastiveXBMLoss())
    with pytest.raises(ValueError, match="1 label has two embeddings or more, expected at least 2"):
        fit_head(x[:4], [0, 0, 1, 2], ContrastiveXBMLoss(), [2])
    with pytest.raises(ValueError, match="NaN or infinity is in 1 of 160 embeddings"):
        fit_head(x.index_fill(0, torch.tensor([3]), torch.nan), labels, ContrastiveXBMLoss())
    with pytest.raises(ValueError, match="dims is 128, expected a list"):
        fit_head(x, labels, ContrastiveXBMLoss(), 128)
