from __future__ import annotations

import torch

from helpers import plain_loops
from oml_vit_ext.losses import ContrastiveXBMLoss, IRTLoss


def test_it_is_contrastive_plus_weighted_entropy() -> None:
    criterion, contrastive = IRTLoss(0.2, 30, entropy_weight=0.7), ContrastiveXBMLoss(0.2, 30)
    for _ in range(4):
        features, labels = torch.randn(8, 6, requires_grad=True), torch.randint(3, (8,))
        loss = criterion(features, labels)
        expected = contrastive(features, labels) + 0.7 * plain_loops.entropy(features)
        torch.testing.assert_close(loss, expected)
        (gradient,), (expected_gradient,) = (torch.autograd.grad(one, features) for one in (loss, expected))
        torch.testing.assert_close(gradient, expected_gradient)


def test_without_entropy_it_is_the_contrastive_loss() -> None:
    features = torch.randn(8, 6)
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    assert IRTLoss(entropy_weight=0.0)(features, labels) == ContrastiveXBMLoss()(features, labels)


def test_logs_hold_both_parts() -> None:
    criterion = IRTLoss(memory_size=8)
    loss = criterion(torch.randn(4, 6), [0, 0, 1, 1])
    logs = criterion.last_logs
    assert set(logs) == {"contrastive", "active_negatives", "memory_fill", "entropy", "mean_nn_distance"}
    torch.testing.assert_close(loss, logs["contrastive"] + 0.7 * logs["entropy"])


def test_the_memory_of_one_variant_loads_into_the_other() -> None:
    first, second = ContrastiveXBMLoss(memory_size=8), IRTLoss(memory_size=8)
    first(torch.randn(4, 6), [0, 0, 1, 1])
    second.load_state_dict(first.state_dict())
    assert len(second.memory) == 4
