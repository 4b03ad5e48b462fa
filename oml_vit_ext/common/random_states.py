"""The random states of this process, as plain data and tensors that a file can keep."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

import numpy as np
import torch

RandomStates: TypeAlias = dict[str, Any]


def random_states() -> RandomStates:
    """The states of Python's, numpy's and torch's global generators, and of the current CUDA device."""
    version, numbers, next_gauss = random.getstate()
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": [version, list(numbers), next_gauss],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_states(states: RandomStates) -> None:
    """Go on from what :func:`random_states` returned, here or in another process."""
    version, numbers, next_gauss = states["python"]
    random.setstate((version, tuple(numbers), next_gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
