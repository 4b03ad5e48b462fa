"""Which of many queries a report shows: the worst, those that re-ranking changed, and some at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oml_vit_ext.common.arrays import Floats


def chosen_queries(last: Floats, before: Floats | None, n: int, seed: int = 0) -> NDArray[np.int64]:
    """Positions of at most ``n`` queries, the worst first.

    A third are the worst; a third those that changed most against the stage before, for the better and for the worse
    alike; the rest, and what these leave, is drawn at random from all.

    Args:
        last: Per query its average precision, ``(queries,)``.
        before: The same of the stage that it is compared with, if there is one.
        n: At most so many.
        seed: Of the draw.
    """
    n = min(n, len(last))
    chosen = dict.fromkeys(np.argsort(last, kind="stable")[: -(-n // 3)].tolist())
    if before is not None:
        change = last - before
        for of_kind in (np.argsort(-change, kind="stable"), np.argsort(change, kind="stable")):
            most = of_kind[: n // 6]
            chosen.update(dict.fromkeys(most[change[most] != 0].tolist()))
    rest = np.setdiff1d(np.arange(len(last)), list(chosen))
    drawn = np.random.default_rng(seed).permutation(rest)[: n - len(chosen)].tolist()
    together = np.array([*chosen, *drawn], dtype=np.int64)[:n]
    return together[np.lexsort((together, last[together]))]


def drawn_queries(n_queries: int, n: int, seed: int = 0) -> NDArray[np.int64]:
    """Positions of at most ``n`` of so many queries, each as likely as the other, in the order drawn."""
    return np.random.default_rng(seed).permutation(n_queries)[:n].astype(np.int64)
