from __future__ import annotations

import io

import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss, CrossBatchMemory
from torch import Tensor

from helpers import plain_loops
from oml_vit_ext.common.momentum_embeddings import attach
from oml_vit_ext.losses import ContrastiveXBMLoss

REDUCTIONS = ["anchors", "nonzero_pairs"]
N_LABELS = 4


def batches(n: int, size: int = 6, dim: int = 5, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, dim, generator=generator, requires_grad=True),
            torch.randint(N_LABELS, (size,), generator=generator),
        )
        for _ in range(n)
    ]


class PlainMemory:
    """Lists: all past batches, of which the last entries count."""

    def __init__(self, size: int) -> None:
        self.size, self.features, self.labels = size, torch.empty(0, 5), torch.empty(0, dtype=torch.int64)

    def add(self, features: Tensor, labels: Tensor) -> None:
        if self.size:
            self.features = torch.cat([self.features, features.detach()])[-self.size :]
            self.labels = torch.cat([self.labels, labels])[-self.size :]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("memory_size", [0, 1, 5, 6, 15, 1000])
@pytest.mark.parametrize("memory_start", [0, 3])
def test_every_step_of_a_training_equals_the_formula(reduction: str, memory_size: int, memory_start: int) -> None:
    criterion = ContrastiveXBMLoss(0.2, memory_size, memory_start, 0.6, reduction)
    memory = PlainMemory(memory_size)
    for step, (features, labels) in enumerate(batches(6)):
        loss = criterion(features, labels)
        used = slice(None) if step >= memory_start else slice(0, 0)
        plain = plain_loops.contrastive(
            features, labels, memory.features[used], memory.labels[used], 0.2, 0.6, reduction
        )
        torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
        (gradient,) = torch.autograd.grad(loss, features)
        (expected,) = torch.autograd.grad(plain, features)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
        memory.add(features, labels)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_resumed_training_continues_exactly(reduction: str) -> None:
    data = batches(9)
    whole = ContrastiveXBMLoss(0.1, 15, 2, reduction=reduction)
    expected = [whole(*one) for one in data]
    for stop in range(9):
        first = ContrastiveXBMLoss(0.1, 15, 2, reduction=reduction)
        for one in data[:stop]:
            first(*one)
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second = ContrastiveXBMLoss(0.1, 15, 2, reduction=reduction)
        second.load_state_dict(torch.load(file, weights_only=True))
        assert [second(*one) for one in data[stop:]] == expected[stop:]


def test_evaluation_uses_the_memory_and_leaves_it_alone() -> None:
    criterion = ContrastiveXBMLoss(0.1, memory_size=20)
    (first, first_labels), (features, labels) = batches(2)
    criterion(first, first_labels)
    before = criterion.state_dict()
    criterion.eval()
    with torch.no_grad():
        value = criterion(features, labels)
    torch.testing.assert_close(value, plain_loops.contrastive(features, labels, first, first_labels, 0.1).detach())
    assert all((criterion.state_dict()[name] == tensor).all() for name, tensor in before.items())
    assert not value.requires_grad


@pytest.mark.parametrize("memory_size", [6, 17, 24, 100])
def test_nonzero_pairs_is_what_pytorch_metric_learning_computes(memory_size: int) -> None:
    """There the memory includes the current batch, so it must be one batch larger. Its gradient takes the batch's
    columns for constants: the value's own gradient needs them live."""
    criterion = ContrastiveXBMLoss(0.3, memory_size, reduction="nonzero_pairs")
    loss = ContrastiveLoss(pos_margin=1, neg_margin=0.3, distance=CosineSimilarity())
    peer = CrossBatchMemory(loss, embedding_size=5, memory_size=memory_size + 6)
    past: list[tuple[Tensor, Tensor]] = []
    for features, labels in batches(10):
        value = criterion(features, labels)
        torch.testing.assert_close(value, peer(features, labels), rtol=1e-5, atol=1e-5)

        references = torch.cat([one[0].detach() for one in past] + [features[:0].detach()])[-memory_size:]
        reference_labels = torch.cat([one[1] for one in past] + [labels[:0]])[-memory_size:]
        same = labels[:, None] == torch.cat([reference_labels, labels])
        same_anchor, positive = torch.where(same)
        keep = positive != same_anchor + len(references)
        pairs = (same_anchor[keep], positive[keep], *torch.where(~same))
        live = loss(features, labels, pairs, torch.cat([references, features]), torch.cat([reference_labels, labels]))
        (gradient,) = torch.autograd.grad(value, features)
        (expected,) = torch.autograd.grad(live, features)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
        past.append((features, labels))


def test_without_memory_nonzero_pairs_is_the_plain_contrastive_loss() -> None:
    peer = ContrastiveLoss(pos_margin=1, neg_margin=0.3, distance=CosineSimilarity())
    for features, labels in batches(5, size=12):
        value, expected = ContrastiveXBMLoss(0.3, reduction="nonzero_pairs")(features, labels), peer(features, labels)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        (gradient,), (expected_gradient,) = (torch.autograd.grad(one, features) for one in (value, expected))
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_momentum_features_enter_the_memory_instead() -> None:
    criterion = ContrastiveXBMLoss(0.1, memory_size=20)
    (features, labels), (later, later_labels) = batches(2)
    momentum = torch.randn(6, 5) * 3
    features = attach(features, momentum)
    first = criterion(features, labels)
    torch.testing.assert_close(first, plain_loops.contrastive(features, labels, features[:0], labels[:0], 0.1))
    torch.testing.assert_close(criterion.memory.entries(momentum)[0], torch.nn.functional.normalize(momentum))
    expected = plain_loops.contrastive(later, later_labels, momentum, labels, 0.1)
    torch.testing.assert_close(criterion(later, later_labels), expected)


def test_momentum_features_of_another_shape_are_refused() -> None:
    features = attach(torch.randn(4, 5), torch.randn(3, 5))
    with pytest.raises(ValueError, match=r"momentum embeddings is \(3, 5\), expected the embeddings' shape \(4, 5\)"):
        ContrastiveXBMLoss(memory_size=4)(features, [0, 0, 1, 1])


def test_oml_can_log_everything() -> None:
    criterion = ContrastiveXBMLoss(0.5, memory_size=12)
    for features, labels in batches(2):
        loss = criterion(features, labels)
    assert set(criterion.last_logs) == {"contrastive", "active_negatives", "memory_fill"}
    assert criterion.last_logs["contrastive"] == loss.detach()
    assert criterion.last_logs["memory_fill"] == 0.5
    assert all(not torch.as_tensor(log).requires_grad for log in criterion.last_logs.values())


def test_half_precision_modules_keep_a_float32_memory() -> None:
    criterion = ContrastiveXBMLoss(0.1, memory_size=12)
    criterion(*batches(1)[0])
    assert criterion.half().memory.entries(torch.zeros(1, 5))[0].dtype == torch.float32
