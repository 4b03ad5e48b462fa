from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from helpers import plain_loops
from oml_vit_ext.losses import FeatureMemory, contrastive_loss, entropy_loss, pair_sums
from oml_vit_ext.losses.inputs import unit_vectors

REDUCTIONS = ["anchors", "nonzero_pairs"]
LABELS = {
    "pairs": [0, 0, 1, 1, 2, 2, 3, 3],
    "all the same": [5] * 8,
    "all different": list(range(8)),
    "unbalanced": [7, 7, 7, 7, 7, 1, 2, 2],
    "negative and large": [-3, -3, 2**40, 2**40, 2**40 + 1, 0, 0, 9],
}


@pytest.mark.parametrize("leave_out_idle", [True, False])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("layout", LABELS)
@pytest.mark.parametrize("n_memory", [0, 1, 23])
def test_value_and_gradient_equal_the_formula(
    reduction: str, layout: str, n_memory: int, leave_out_idle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_sums, "may_wait_for_values", lambda device: leave_out_idle)
    labels = torch.tensor(LABELS[layout])
    memory, memory_labels = plain_loops.random_unit(n_memory, 6), labels[torch.randint(8, (n_memory,))]
    features = torch.randn(8, 6, requires_grad=True)
    ours = contrastive_loss(
        unit_vectors(features),
        labels,
        memory=memory,
        memory_labels=memory_labels,
        margin=0.3,
        memory_weight=0.7,
        reduction=reduction,
    )
    plain = plain_loops.contrastive(features, labels, memory, memory_labels, 0.3, 0.7, reduction)
    plain_loops.assert_same(ours.loss, plain, features)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradcheck_in_float64(reduction: str) -> None:
    labels, memory_labels = torch.tensor([0, 0, 1, 1, 2]), torch.randint(3, (9,))
    memory = plain_loops.random_unit(9, 4, torch.float64)

    def loss(features: Tensor) -> Tensor:
        return contrastive_loss(
            unit_vectors(features),
            labels,
            memory=memory,
            memory_labels=memory_labels,
            margin=0.2,
            memory_weight=0.5,
            reduction=reduction,
        ).loss

    assert torch.autograd.gradcheck(loss, torch.randn(5, 4, dtype=torch.float64, requires_grad=True))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    features, labels = torch.randn(9, 4, requires_grad=True), torch.randint(3, (9,))
    whole = contrastive_loss(unit_vectors(features), labels, margin=0.2).loss
    (gradient,) = torch.autograd.grad(whole, features)
    total = torch.zeros(())
    for start, stop in ((0, 2), (2, 9)):
        z = unit_vectors(features)
        part = contrastive_loss(z[start:stop], labels[start:stop], z, labels, margin=0.2, first_anchor=start).loss
        (own,) = torch.autograd.grad(part, features)
        torch.testing.assert_close(own[start:stop], gradient[start:stop])
        assert (own[:start] == 0).all() and (own[stop:] == 0).all()
        total += part.detach()
    torch.testing.assert_close(total, whole.detach())


def test_active_negatives_are_counted_in_batch_and_memory() -> None:
    z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    memory = torch.tensor([[0.6, 0.8], [0.0, -1.0]])
    result = contrastive_loss(z, torch.tensor([0, 1, 2]), memory=memory, memory_labels=torch.tensor([9, 9]), margin=0.5)
    # (0, 1) and (1, 0) at 0.8 in the batch; 0.6 and 0.96 to the first memory entry.
    assert float(result.n_active_negatives) == 4


def test_a_second_derivative_is_refused() -> None:
    features = torch.randn(4, 3, requires_grad=True)
    loss = contrastive_loss(unit_vectors(features), torch.tensor([0, 0, 1, 1])).loss
    (gradient,) = torch.autograd.grad(loss, features, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        gradient.square().sum().backward()


def test_no_gradient_is_formed_where_none_is_wanted() -> None:
    features, labels = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 0, 1, 1, 2, 2])
    with torch.no_grad():
        without = contrastive_loss(unit_vectors(features), labels).loss
    assert not without.requires_grad
    torch.testing.assert_close(without, contrastive_loss(unit_vectors(features), labels).loss.detach())


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_step_never_waits_for_a_value(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, reading a value (.item(), nonzero, a boolean index) stalls the step; fake tensors have none to read."""
    monkeypatch.setattr(pair_sums, "may_wait_for_values", lambda device: False)
    with FakeTensorMode():
        memory = FeatureMemory(50)
        for _ in range(5):
            features = torch.randn(16, 8, requires_grad=True)
            labels = torch.zeros(16, dtype=torch.int64)
            z = unit_vectors(features)
            past = memory.entries(z)
            loss = contrastive_loss(z, labels, memory=past[0], memory_labels=past[1], reduction=reduction).loss
            loss = loss + entropy_loss(z).loss
            loss.backward()
            memory.enqueue(z, labels)
        with pytest.raises(DataDependentOutputException):
            loss.item()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch": None}, "batch is None, expected the embeddings that batch_labels belongs to."),
        ({"batch_labels": None}, "batch_labels is None, expected one label for each row of batch."),
        ({"memory": None}, "memory is None, expected the embeddings that memory_labels belongs to."),
        ({"memory_labels": None}, "memory_labels is None, expected one label for each row of memory."),
        ({"anchor_labels": torch.arange(3)}, "anchor_labels is of shape (3,), expected (2,): one label for each row"),
        ({"batch_labels": torch.arange(3)}, "batch_labels is of shape (3,), expected (4,): one label for each row"),
        ({"memory_labels": torch.arange(3)}, "memory_labels is of shape (3,), expected (5,): one label for each row"),
        ({"reduction": "anchor"}, "Unknown reduction 'anchor': did you mean 'anchors'?"),
        ({"first_anchor": 3}, "first_anchor is 3, expected a whole number from 0 to 2"),
        ({"batch": None, "batch_labels": None}, "first_anchor is 1, expected a whole number from 0 to 0"),
    ],
)
def test_nothing_half_given_is_ignored(given: dict[str, Any], sentence: str) -> None:
    whole: dict[str, Any] = {
        "anchors": torch.eye(4)[1:3],
        "anchor_labels": torch.arange(2),
        "batch": torch.eye(4),
        "batch_labels": torch.arange(4),
        "memory": torch.ones(5, 4) / 2,
        "memory_labels": torch.arange(5),
        "first_anchor": 1,
    }
    contrastive_loss(**whole)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        contrastive_loss(**whole | given)
