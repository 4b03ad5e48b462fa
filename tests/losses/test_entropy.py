from __future__ import annotations

import math

import pytest
import torch

from helpers import plain_loops
from oml_vit_ext.losses import DifferentialEntropyLoss, entropy_loss
from oml_vit_ext.losses.inputs import unit_vectors


@pytest.mark.parametrize("shape", [(2, 1), (2, 5), (3, 3), (17, 8), (64, 384)])
def test_value_and_gradient_equal_brute_force(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, requires_grad=True)
    value = DifferentialEntropyLoss()(features, torch.zeros(len(features), dtype=torch.int64))
    expected = plain_loops.entropy(features)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    if shape[1] > 1:  # on a line the two ends are the only unit vectors: no gradient along the sphere
        (gradient,) = torch.autograd.grad(value, features)
        (expected_gradient,) = torch.autograd.grad(expected, features)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_neighbours_closer_than_the_resolution_of_a_dot_product() -> None:
    z = torch.nn.functional.normalize(torch.randn(12, 16)).repeat_interleave(3, 0)
    features = z + 1e-5 * torch.randn(36, 16) * torch.tensor([0.0, 1.0, 3.0]).repeat(12)[:, None]
    torch.testing.assert_close(
        DifferentialEntropyLoss()(features, [0] * 36), plain_loops.entropy(features), rtol=1e-4, atol=0
    )


def test_duplicates_cost_log_eps_and_push_nowhere() -> None:
    features = torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0]], requires_grad=True)
    loss = DifferentialEntropyLoss(eps=1e-4)(features, [0, 1, 2])
    assert loss.item() == pytest.approx(-(2 * math.log(1e-4) + math.log(math.sqrt(2))) / 3, rel=1e-5)
    loss.backward()
    assert torch.isfinite(features.grad).all()
    torch.testing.assert_close(loss.detach(), plain_loops.entropy(features.detach(), 1e-4))


def test_a_single_sample_costs_nothing() -> None:
    features = torch.randn(1, 4, requires_grad=True)
    criterion = DifferentialEntropyLoss()
    loss = criterion(features, [3])
    loss.backward()
    assert loss == 0 and (features.grad == 0).all()
    assert criterion.last_logs["mean_nn_distance"] == 0


def test_gradcheck_in_float64() -> None:
    features = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: entropy_loss(unit_vectors(f)).loss, features)


def test_logs() -> None:
    criterion = DifferentialEntropyLoss()
    loss = criterion(torch.eye(3), [0, 1, 2])
    assert criterion.last_logs["entropy"] == loss
    assert float(criterion.last_logs["mean_nn_distance"]) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("eps", [0, -1.0, 1e-50, float("nan"), float("inf")])
def test_an_eps_that_float32_cannot_hold_is_refused(eps: float) -> None:
    with pytest.raises(ValueError, match="eps is"):
        DifferentialEntropyLoss(eps)


def test_the_smallest_eps_gives_a_finite_loss() -> None:
    criterion = DifferentialEntropyLoss(1.2e-38)
    assert math.isfinite(criterion(torch.ones(4, 3), [0, 0, 1, 1]))
