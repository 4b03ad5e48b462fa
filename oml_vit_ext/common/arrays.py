"""Names for what arrays and tuples hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
Box = tuple[int, int, int, int]  # left, upper, right, lower, px
