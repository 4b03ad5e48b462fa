"""What a drawn figure shows: where its pixels have a colour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

GREY = np.full((16, 24, 3), 0.5)


def pixels_of(path: Path, colour: str) -> np.ndarray:
    """Where a drawn picture has exactly this colour, as a boolean array."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return (np.asarray(Image.open(path).convert("RGB")) == wanted).all(axis=-1)


def columns_with(path: Path, colour: str) -> list[float]:
    """The left edges of separate areas of a colour, as shares of the width."""
    there = pixels_of(path, colour).sum(axis=0) > 20  # vertical sides of frames
    starts = np.flatnonzero(there & ~np.roll(there, 1))
    return (starts / len(there)).tolist()
