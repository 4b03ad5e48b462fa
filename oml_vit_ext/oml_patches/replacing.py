"""The one way in which a function of OML is replaced."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

_ORIGINAL = "_original_of_oml"


def replace(owner: Any, name: str, wrap: Callable[[Any], Callable[..., Any]], effect: str) -> None:
    """Replace a function of a module or class by ``wrap(function)``, once.

    Nothing happens where there is no such function, or it has been replaced before. The replacement remembers the
    original and looks like it (name, documentation, signature).

    Args:
        owner: The module or class.
        name: Of the function in it.
        wrap: Gets the original, returns the replacement.
        effect: What is different from now on, for the log.
    """
    original = getattr(owner, name, None)
    if original is None or hasattr(original, _ORIGINAL):
        return
    replacement = functools.wraps(original)(wrap(original))
    setattr(replacement, _ORIGINAL, original)
    setattr(owner, name, replacement)
    logger.info("open-metric-learning: %s", effect)
