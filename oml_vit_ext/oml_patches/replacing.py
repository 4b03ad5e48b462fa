"""The one way in which a function of OML is replaced."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

_ORIGINAL, _EFFECT = "_original_of_oml", "_effect"


def replace(owner: Any, name: str, wrap: Callable[[Any], Callable[..., Any]], effect: str) -> None:
    """Replace a function of a module or class by ``wrap(function)``, once.

    Nothing happens where there is no such function, or it has been replaced with this effect before; a change with
    another effect comes on top. The replacement remembers the original and looks like it (name, documentation,
    signature).

    Args:
        owner: The module or class.
        name: Of the function in it.
        wrap: Gets the original, returns the replacement.
        effect: What is different from now on, for the log.
    """
    original = getattr(owner, name, None)
    if original is None or effect in _effects(original):
        return
    replacement = functools.wraps(original)(wrap(original))
    setattr(replacement, _ORIGINAL, original)
    setattr(replacement, _EFFECT, effect)
    setattr(owner, name, replacement)
    logger.info("open-metric-learning: %s", effect)


def _effects(function: Any) -> list[str]:
    """Of this replacement and those below it."""
    found = []
    while hasattr(function, _ORIGINAL):
        found.append(getattr(function, _EFFECT))
        function = getattr(function, _ORIGINAL)
    return found
