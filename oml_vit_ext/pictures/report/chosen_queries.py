"""Which of many queries a report shows: the worst, those that re-ranking changed, and some at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oml_vit_ext.common.arrays import Floats


def chosen_queries(average_precisions: list[Floats], n: int, seed: int = 0) -> NDArray[np.int64]:
    """Positions of at most ``n`` queries, the worst first.

    A third are the worst of the last stage; a third those that the last stage changed most against the one before it,
    for the better and for the worse alike; the rest, and what these leave, is drawn at random from all.

    Args:
        average_precisions: Per stage one value per query, ``(queries,)``.
        n: At most so many.
        seed: Of the draw.
    """
    last = average_precisions[-1]
    n = min(n, len(last))
    chosen = dict.fromkeys(np.argsort(last, kind="stable")[: -(-n // 3)].tolist())
    if len(average_precisions) > 1:
        change = last - average_precisions[-2]
        for of_kind in (np.argsort(-change, kind="stable"), np.argsort(change, kind="stable")):
            changed = of_kind[: n // 6]
            chosen.update(dict.fromkeys(changed[change[changed] != 0].tolist()))
    rest = np.setdiff1d(np.arange(len(last)), list(chosen))
    drawn = np.random.default_rng(seed).permutation(rest)[: n - len(chosen)].tolist()
    together = np.array([*chosen, *drawn], dtype=np.int64)[:n]
    return together[np.lexsort((together, last[together]))]
