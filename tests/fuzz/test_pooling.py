"""Poolings of random tokens, beside NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from oml_vit_ext.extractors.pooling import POOLINGS, Pooling

TOKENS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(4, 8), st.integers(1, 4)),
    elements=st.one_of(
        st.floats(-100, 100, width=32), st.sampled_from([float(np.float32(x)) for x in (0, -1, 1e-6, 1e-30, 1e4, 6e4)])
    ),
)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])


def plainly(tokens: np.ndarray, pooling: str, n_prefix: int, p: float) -> np.ndarray:
    """(B, N, D) -> (B, D)."""
    patches = tokens[:, n_prefix:]
    match pooling:
        case "cls":
            return tokens[:, 0]
        case "avg":
            return patches.mean(axis=1)
        case "max":
            return patches.max(axis=1)
    clamped = np.maximum(patches, 1e-6)
    largest = clamped.max(axis=1, keepdims=True)  # or its power overflows in float64 too
    return largest[:, 0] * (((clamped / largest) ** p).mean(axis=1)) ** (1 / p)


@fuzz(short=40, long=2_000)
@given(TOKENS, st.sampled_from(POOLINGS), st.integers(1, 3), st.floats(0.05, 60), DTYPES)
def test_poolings(tokens: np.ndarray, pooling: str, n_prefix: int, p: float, dtype: torch.dtype):
    given_tokens = torch.from_numpy(tokens).to(dtype).requires_grad_()
    pooled = Pooling(pooling, n_prefix, p)(given_tokens)
    expected = torch.from_numpy(plainly(given_tokens.detach().double().numpy(), pooling, n_prefix, p))
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-4)
    torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=1e-5 if pooling == "gem" else tolerance)
    pooled.float().sum().backward()
    assert torch.isfinite(given_tokens.grad).all()


@fuzz(short=40, long=1_000)
@given(
    st.one_of(st.sampled_from(POOLINGS), ODD_VALUES),
    st.one_of(st.just(1), ODD_VALUES),
    st.one_of(st.just(3.0), ODD_VALUES),
)
def test_odd_arguments(pooling: Any, n_prefix: Any, p: Any):
    made = result_or_refusal(lambda: Pooling(pooling, n_prefix, p))
    if not isinstance(made, Refusal) and n_prefix < 4:
        assert torch.isfinite(made(torch.ones(1, 5, 2))).all()
