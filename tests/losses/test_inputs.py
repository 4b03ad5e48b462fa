from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from oml_vit_ext.losses import ContrastiveXBMLoss, DifferentialEntropyLoss, IRTLoss, PMLLoss
from oml_vit_ext.losses.inputs import check_batch, unit_vectors

TRIPLET = {"loss": {"name": "TripletMarginLoss"}}
LOSSES: dict[str, Any] = {
    "contrastive": lambda: ContrastiveXBMLoss(memory_size=12),
    "nonzero_pairs": lambda: ContrastiveXBMLoss(memory_size=12, reduction="nonzero_pairs"),
    "entropy": DifferentialEntropyLoss,
    "irt": lambda: IRTLoss(memory_size=12),
}


@pytest.mark.parametrize(
    ("loss", "args", "sentence"),
    [
        (ContrastiveXBMLoss, {"reduction": "mean"}, "Unknown reduction 'mean'. Valid: 'anchors', 'nonzero_pairs'."),
        (ContrastiveXBMLoss, {"reduction": "anchor"}, "Unknown reduction 'anchor': did you mean 'anchors'?"),
        (ContrastiveXBMLoss, {"margin": -0.1}, "margin is -0.1, expected a number from 0 to 1."),
        (ContrastiveXBMLoss, {"margin": math.nan}, "margin is nan, expected a number from 0 to 1."),
        (ContrastiveXBMLoss, {"memory_size": -1}, "memory_size is -1, expected a whole number of at least 0."),
        (ContrastiveXBMLoss, {"memory_size": 0.5}, "memory_size is 0.5, expected a whole number of at least 0."),
        (IRTLoss, {"memory_start": -2}, "memory_start is -2, expected a whole number of at least 0."),
        (IRTLoss, {"memory_weight": -1.0}, "memory_weight is -1.0, expected a finite number of at least 0."),
        (IRTLoss, {"entropy_weight": "big"}, "entropy_weight is 'big', expected a finite number of at least 0."),
        (DifferentialEntropyLoss, {"eps": 0}, "eps is 0, expected a finite number of at least 1.17549e-38."),
        (PMLLoss, TRIPLET | {"memory_size": -1}, "memory_size is -1, expected a whole number of at least 0."),
    ],
)
def test_wrong_arguments(loss: Any, args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        loss(**args)


@pytest.mark.parametrize("loss", [*LOSSES, "pml"])
@pytest.mark.parametrize(
    ("features", "labels", "sentence"),
    [
        (torch.zeros(3, 4), [0, 1], "labels is of shape (2,), expected (3,): one label for each row of features."),
        (
            torch.zeros(3, 4),
            torch.zeros(3, 1).long(),
            "labels is of shape (3, 1), expected (3,): one label for each row of features.",
        ),
        (
            torch.zeros(3, 4),
            torch.zeros(3),
            "labels is torch.float32, expected whole numbers (an integer tensor or a list of ints).",
        ),
        (
            torch.zeros(3),
            [0, 1, 2],
            "features is torch.float32 (3,), expected a floating-point tensor (B, D) with B and D of at least 1.",
        ),
        (
            torch.zeros(0, 4),
            [],
            "features is torch.float32 (0, 4), expected a floating-point tensor (B, D) with B and D of at",
        ),
        (
            torch.zeros(3, 0),
            [0, 1, 2],
            "features is torch.float32 (3, 0), expected a floating-point tensor (B, D) with B and D of at",
        ),
        (
            torch.zeros(3, 4).long(),
            [0, 1, 2],
            "features is torch.int64 (3, 4), expected a floating-point tensor (B, D)",
        ),
        (
            torch.full((3, 4), math.nan),
            [0, 1, 2],
            "features is not finite in 3 of 3 rows, expected no NaN or infinity.",
        ),
        (torch.tensor([[1.0, math.inf], [0, 1]]), [0, 1], "features is not finite in 1 of 2 rows"),
    ],
)
def test_wrong_batches(loss: str, features: torch.Tensor, labels: Any, sentence: str) -> None:
    criterion = PMLLoss(**TRIPLET, memory_size=12) if loss == "pml" else LOSSES[loss]()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        criterion(features, labels)


HARD_BATCHES = {
    "one sample": torch.ones(1, 4),
    "all zero": torch.zeros(4, 4),
    "one zero": torch.eye(4) * torch.tensor([[0.0], [1], [1], [1]]),
    "all duplicates": torch.ones(4, 4),
    "opposite": torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]]),
    "tiny": torch.randn(4, 4) * 1e-30,
    "huge": torch.randn(4, 4) * 1e30,
    "huge and tiny": torch.randn(4, 4) * torch.tensor([[1e30], [1e-30], [1.0], [0.0]]),
    "nearly duplicates": torch.ones(4, 4) + torch.arange(4)[:, None] * 1e-7 * torch.eye(4),
    "denormal": torch.full((4, 4), 1e-42),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("batch", HARD_BATCHES)
@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [3, 3, 3, 3], [0, 1, 2, 3]])
def test_finite_features_give_finite_losses_and_gradients(loss: str, batch: str, labels: list[int]) -> None:
    criterion = LOSSES[loss]()
    for _ in range(4):  # the memory fills with such batches, and wraps around
        features = HARD_BATCHES[batch].clone().requires_grad_()
        value = criterion(features, labels[: len(features)])
        value.backward()
        assert torch.isfinite(value) and value.shape == ()
        assert torch.isfinite(features.grad).all()
        assert all(math.isfinite(float(log)) for log in criterion.last_logs.values())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_computed_in_float32(loss: str, dtype: torch.dtype) -> None:
    features = (torch.randn(8, 16) * 100).to(dtype)
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    half, full = features.clone().requires_grad_(), features.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = LOSSES[loss]()(half, labels)
    expected = LOSSES[loss]()(full, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)
    value.backward()
    expected.backward()
    torch.testing.assert_close(half.grad, full.grad.to(dtype))


def test_features_at_the_edge_of_fp16() -> None:
    largest = torch.finfo(torch.float16).max
    features = torch.full((4, 8), largest, dtype=torch.float16)
    features[2:, ::2] *= -1
    features.requires_grad_()
    IRTLoss()(features, [0, 0, 1, 1]).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 1],
        (0, 0, 1, 1),
        torch.tensor([0, 0, 1, 1], dtype=torch.int32),
        torch.tensor([0, 0, 1, 1], dtype=torch.uint8),
        torch.tensor([False, False, True, True]),
    ],
)
def test_labels_of_any_whole_type(labels: Any) -> None:
    features = torch.randn(4, 3)
    expected = ContrastiveXBMLoss(0.1)(features, torch.tensor([0, 0, 1, 1]))
    assert ContrastiveXBMLoss(0.1)(features, labels) == expected


def test_unit_vectors() -> None:
    features = torch.randn(50, 7, requires_grad=True)
    ours, reference = unit_vectors(features), torch.nn.functional.normalize(features)
    torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-6)
    probe = torch.randn(50, 7)
    (gradient,) = torch.autograd.grad((ours * probe).sum(), features)
    (expected,) = torch.autograd.grad((reference * probe).sum(), features)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)
    assert torch.autograd.gradcheck(unit_vectors, torch.randn(3, 4, dtype=torch.float64, requires_grad=True))
    zero = torch.zeros(2, 3, requires_grad=True)
    unit_vectors(zero).sum().backward()
    assert (unit_vectors(zero) == 0).all() and (zero.grad == 0).all()


@pytest.mark.parametrize("labels", [None, ["a", "b"], [[0], []], [2**64, 0], [0, None], {"a": 1}, b"ab"])
def test_labels_that_are_none_end_in_one_sentence(labels: Any):
    with pytest.raises(ValueError, match=r"labels is .*, expected .*whole number|labels is of shape"):
        check_batch(torch.eye(2), labels)
