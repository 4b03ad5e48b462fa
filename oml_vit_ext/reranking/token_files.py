"""Tokens of an image in a small file: half precision, or one byte a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oml_vit_ext.common.array_files import read_array

PRECISIONS = ("half", "int8")
_LARGEST = 127


def read_tokens(file: Path) -> Tensor | None:
    """The tokens in a file of a store, ``(T, D)`` or ``(h, w, D)``, float32; ``None`` if it is gone or damaged."""
    try:
        return _unpacked(read_array(file))
    except (OSError, ValueError):
        return None


def pack_tokens(tokens: Tensor, precision: str) -> NDArray[Any]:
    """Tokens ``(..., D)``, float32, as float16; or as int8, and behind each row its largest number as float16."""
    if precision == "half":
        return tokens.half().numpy()
    largest = tokens.abs().amax(dim=-1, keepdim=True).clamp(min=1e-4).half().clamp(max=65_504)
    whole = (tokens / largest.float() * _LARGEST).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
    return np.concatenate([whole.numpy(), largest.numpy().view(np.int8)], axis=-1)


def _unpacked(packed: NDArray[Any]) -> Tensor:
    if packed.dtype == np.float16 and packed.ndim in (2, 3):
        found = torch.from_numpy(packed.astype(np.float32))
    elif packed.dtype == np.int8 and packed.ndim in (2, 3) and packed.shape[-1] > 2:
        largest = np.ascontiguousarray(packed[..., -2:]).view(np.float16).astype(np.float32)
        found = torch.from_numpy(packed[..., :-2].astype(np.float32) * (largest / _LARGEST))
    else:
        raise ValueError(f"{packed.dtype} of shape {packed.shape} are no tokens")
    if not torch.isfinite(found).all():
        raise ValueError("tokens that are not finite")
    return found
