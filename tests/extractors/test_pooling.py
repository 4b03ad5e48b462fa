"""Pooling against values worked out by hand."""

from typing import Any

import pytest
import torch

from oml_vit_ext.extractors.pooling import Pooling, gem_pool

# One image, CLS and a distillation token, three patches, two dimensions.
TOKENS = torch.tensor([[[9.0, -9.0], [7.0, 7.0], [1.0, -1.0], [2.0, 5.0], [3.0, 2.0]]])


def test_cls_is_the_first_token_and_not_the_distillation_token():
    assert Pooling("cls", 2)(TOKENS).tolist() == [[9.0, -9.0]]


def test_average_and_maximum_leave_prefix_tokens_out():
    assert Pooling("avg", 2)(TOKENS).tolist() == [[2.0, 2.0]]
    assert Pooling("max", 2)(TOKENS).tolist() == [[3.0, 5.0]]


def test_gem_by_hand():
    # ((1 + 8 + 27) / 3) ** (1/3), and the negative value clamped to almost nothing: ((0 + 125 + 8) / 3) ** (1/3)
    expected = torch.tensor([[12.0 ** (1 / 3), (133 / 3) ** (1 / 3)]])
    torch.testing.assert_close(gem_pool(TOKENS, 2, p=3.0), expected)


def test_gem_lies_between_average_and_maximum():
    tokens = torch.rand(4, 10, 6)
    low, high = gem_pool(tokens, 1, p=1.0), gem_pool(tokens, 1, p=100.0)
    torch.testing.assert_close(low, Pooling("avg", 1)(tokens))
    torch.testing.assert_close(high, Pooling("max", 1)(tokens), rtol=0.03, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gem_in_half_precision_keeps_its_gradient_finite(dtype: torch.dtype):
    tokens = torch.zeros(2, 5, 4, dtype=dtype, requires_grad=True)
    gem_pool(tokens, 1).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()


def test_unknown_pooling_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"Unknown pooling 'gme': did you mean 'gem'\?.*'avg', 'cls', 'gem', 'map', 'max'"
    ):
        Pooling("gme", 1)


@pytest.mark.parametrize("p", [0.0, -1.0, float("nan"), float("inf"), "3", None])
def test_gem_exponent_must_be_positive(p: Any):
    with pytest.raises(ValueError, match=f"gem_p is {p!r}, expected a"):
        Pooling("gem", 1, gem_p=p)


@pytest.mark.parametrize("n_prefix", [-1, 1.5, None])
def test_prefix_tokens_are_counted_in_whole_numbers(n_prefix: Any):
    with pytest.raises(ValueError, match=f"num_prefix_tokens is {n_prefix}, expected a whole number"):
        Pooling("avg", n_prefix)


@pytest.mark.parametrize("scale", [1e4, 1e-5])
def test_gem_of_a_large_exponent_neither_overflows_nor_vanishes(scale: float):
    tokens = (scale * torch.tensor([[[9.0], [1.0], [0.5], [0.25]]])).requires_grad_()
    pooled = gem_pool(tokens, 1, p=20.0)
    pooled.sum().backward()
    expected = scale * ((1.0**20 + 0.5**20 + 0.25**20) / 3) ** (1 / 20)
    torch.testing.assert_close(pooled, torch.tensor([[expected]]))
    assert torch.isfinite(tokens.grad).all() and tokens.grad[0, 1, 0] > 0.9
