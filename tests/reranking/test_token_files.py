"""Tokens in small files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from oml_vit_ext.common.array_files import write_array
from oml_vit_ext.reranking.token_files import pack_tokens, read_tokens


@pytest.mark.parametrize("shape", [(5, 48), (3, 4, 48)])
@pytest.mark.parametrize("precision, error, n_bytes", [("half", 5e-4, 96), ("int8", 1 / 250, 50)])
def test_they_come_back_nearly_as_they_were(
    tmp_path: Path, shape: tuple[int, ...], precision: str, error: float, n_bytes: int
):
    tokens = torch.randn(shape) * torch.tensor([0.01, 1.0, 30.0])[torch.arange(shape[-2]) % 3, None]
    tokens[0, 0] = 0.0
    packed = pack_tokens(tokens, precision)
    write_array(packed, tmp_path / "tokens.npy")
    found = read_tokens(tmp_path / "tokens.npy")
    assert found is not None and found.shape == shape and found.dtype == torch.float32
    assert packed.nbytes == n_bytes * tokens[..., 0].numel()
    off = (found - tokens).abs().amax(dim=-1)
    assert (off <= error * tokens.abs().amax(dim=-1) + 1e-7).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.float32),
        np.zeros(4, np.float16),
        np.full((2, 3), np.nan, np.float16),
        np.zeros((2, 2), np.int8),
    ],
    ids=["float32", "flat", "nan", "narrow"],
)
def test_other_arrays_are_no_tokens(tmp_path: Path, array: np.ndarray):
    write_array(array, tmp_path / "odd.npy")
    assert read_tokens(tmp_path / "odd.npy") is None


def test_files_that_are_gone_or_cut_short(tmp_path: Path):
    assert read_tokens(tmp_path / "none.npy") is None
    write_array(pack_tokens(torch.randn(4, 8), "half"), tmp_path / "cut.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-5])
    assert read_tokens(tmp_path / "cut.npy") is None
