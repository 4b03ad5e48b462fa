"""Lists of unequal length without a loop over rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Codes = NDArray[np.int64]


def group_sizes(wanted: Codes, codes: Codes) -> Codes:
    """For each of ``wanted``, how often it occurs in ``codes``."""
    ordered = np.sort(codes)
    return np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted, side="left")


def gather_groups(wanted: Codes, codes: Codes) -> tuple[Codes, Codes]:
    """The ascending positions of each of ``wanted`` in ``codes``, one list after the other, and the lists' lengths."""
    by_code = np.argsort(codes, kind="stable")
    ordered = codes[by_code]
    starts = np.searchsorted(ordered, wanted, side="left")
    sizes = np.searchsorted(ordered, wanted, side="right") - starts
    ends = np.cumsum(sizes)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
    return by_code[np.repeat(starts, sizes) + within], sizes


def split_rows(matrix: NDArray[Any], counts: Codes) -> list[Tensor]:
    """The first ``counts[i]`` entries of each row ``i``, as tensors that share the matrix's memory."""
    if (counts == matrix.shape[1]).all():
        return list(torch.from_numpy(matrix).unbind(0))
    flat = matrix[np.arange(matrix.shape[1]) < counts[:, None]]
    return list(torch.from_numpy(flat).split(counts.tolist()))
