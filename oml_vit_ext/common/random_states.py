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
    random.setstate(_of_python(states))
    np.random.set_state(_of_numpy(states))
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def check_random_states(states: Any) -> None:
    """Try states that come from a file, on generators that nobody else uses.

    Raises:
        ValueError: They are no states of these generators.
    """
    try:
        random.Random().setstate(_of_python(states))
        np.random.RandomState().set_state(_of_numpy(states))
        torch.Generator().set_state(states["torch"])
        known = states["cuda"] is None or isinstance(states["cuda"], torch.Tensor)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"it holds no random states ({type(error).__name__}: {error}).") from error
    if not known:
        raise ValueError(f"it holds a {type(states['cuda']).__name__} as random state of CUDA, expected a tensor.")


def _of_python(states: RandomStates) -> tuple[Any, ...]:
    version, numbers, next_gauss = states["python"]
    return version, tuple(numbers), next_gauss


def _of_numpy(states: RandomStates) -> tuple[Any, ...]:
    name, keys, *rest = states["numpy"]
    return name, keys.numpy().astype(np.uint32), *rest
