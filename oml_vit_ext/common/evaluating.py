"""A model in evaluation mode for a while, and then as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn


@dataclass
class _Held:
    """A part of a model inside at least one block."""

    mode: bool  # before the first block
    n_blocks: int = 0


_LOCK = threading.Lock()
_HELD: WeakKeyDictionary[nn.Module, _Held] = WeakKeyDictionary()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the block every part of the model is in evaluation mode; afterwards each is in the mode that it was in.

    ``model.train()`` would put the parts that somebody froze into training mode as well. Several threads may be in
    blocks of one model at once: the last one to leave brings the modes back.
    """
    with _LOCK:
        parts = list(model.modules())
        for part in parts:
            _HELD.setdefault(part, _Held(part.training)).n_blocks += 1
    try:
        with _LOCK:
            model.eval()
        yield
    finally:
        with _LOCK:
            for part in parts:
                held = _HELD[part]
                held.n_blocks -= 1
                if held.n_blocks == 0:
                    part.training = held.mode
                    del _HELD[part]
