"""In which order to compare pairs, and when to load and drop each image, so that few images are loaded twice.

With a tenth of the images in memory, the order and the plan together need 52 to 80 % fewer loads than pairs by query
with a least recently used cache, and the plan alone 17 to 25 % of those that the order leaves
(``benchmarks/bench_pair_order.py``).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]  # (N, 2) ids of images in the data set


@dataclass(frozen=True)
class Step:
    """One chunk of pairs: load these images, compare these pairs, drop those images."""

    load: list[int]
    pairs: slice
    drop: list[int]


def order_for_reuse(pairs: Pairs, capacity: int) -> NDArray[np.int64]:
    """A permutation of ``pairs`` after which few images leave a cache and have to come back.

    Pairs of the same first image stay together as a group. Greedy: repeatedly take the group with the fewest images
    missing from a least recently used cache of ``capacity`` images. Ties go to the group whose images were used last.

    Args:
        pairs: ``(N, 2)`` image ids.
        capacity: How many images the cache holds.

    Returns:
        ``(N,)`` positions in ``pairs``.
    """
    if len(pairs) == 0 or len(np.unique(pairs)) <= capacity:
        return np.lexsort((pairs[:, 1], pairs[:, 0])) if len(pairs) else np.zeros(0, dtype=np.int64)
    by_first: dict[int, list[int]] = defaultdict(list)
    for row, first in enumerate(pairs[:, 0].tolist()):
        by_first[first].append(row)
    rows_of = list(by_first.values())
    images_of = [sorted({*pairs[rows].ravel().tolist()}) for rows in rows_of]
    groups_with: dict[int, list[int]] = defaultdict(list)
    for group, images in enumerate(images_of):
        for image in images:
            groups_with[image].append(group)

    cost = [len(images) for images in images_of]
    # Candidates by cost, the last touched on top; entries whose cost has changed since are skipped.
    piles: dict[int, list[int]] = defaultdict(list)
    for group in reversed(range(len(cost))):
        piles[cost[group]].append(group)
    recent: OrderedDict[int, None] = OrderedDict()
    done = [False] * len(cost)
    order: list[int] = []

    def change_cost(image: int, by: int) -> None:
        for group in groups_with[image]:
            if not done[group]:
                cost[group] += by
                piles[cost[group]].append(group)

    for _ in rows_of:
        group = _cheapest(piles, cost, done)
        done[group] = True
        order.extend(rows_of[group])
        for image in images_of[group]:
            if image not in recent:
                change_cost(image, -1)
            recent[image] = None
            recent.move_to_end(image)
        while len(recent) > capacity:
            change_cost(recent.popitem(last=False)[0], +1)
    return np.array(order, dtype=np.int64)


def plan_steps(pairs: Pairs, capacity: int, pairs_per_step: int, held: set[int] | None = None) -> list[Step]:
    """Cut ordered ``pairs`` into steps that never hold more than ``capacity`` images.

    The future is known, so the image to drop is the one that is needed last, which loads as few as is possible for this
    order (Belady, 1966). An image that is not needed again is dropped at once.

    Args:
        pairs: ``(N, 2)`` image ids, in the order in which they are compared.
        capacity: How many images may be held, at least 2.
        pairs_per_step: At most so many pairs in a step.
        held: Images that are held already.
    """
    bounds = _cut(pairs, capacity, pairs_per_step)
    needed = [sorted(set(pairs[rows].ravel().tolist())) for rows in bounds]
    uses: dict[int, list[int]] = defaultdict(list)  # image -> steps still to come, the next one last
    for step in reversed(range(len(needed))):
        for image in needed[step]:
            uses[image].append(step)

    held = set(held or ())
    # A heap of (-step, image); stale entries are skipped.
    by_next_use = [(-uses[image][-1] if uses[image] else -len(needed), image) for image in held]
    heapq.heapify(by_next_use)
    steps: list[Step] = []
    pending_drop: list[int] = []
    for rows, images in zip(bounds, needed, strict=True):
        load = [image for image in images if image not in held]
        drop = pending_drop
        in_use = set(images)
        kept: list[tuple[int, int]] = []
        while len(held) + len(load) > capacity:
            entry = heapq.heappop(by_next_use)
            image = entry[1]
            if image not in held or (uses[image] and -entry[0] != uses[image][-1]):
                continue
            if image in in_use:
                kept.append(entry)
                continue
            held.discard(image)
            drop.append(image)
        for entry in kept:
            heapq.heappush(by_next_use, entry)
        held.update(load)
        pending_drop = []
        for image in images:
            uses[image].pop()
            if uses[image]:
                heapq.heappush(by_next_use, (-uses[image][-1], image))
            else:
                held.discard(image)
                pending_drop.append(image)
        steps.append(Step(load, rows, drop))
    return steps


def _cheapest(piles: dict[int, list[int]], cost: list[int], done: list[bool]) -> int:
    for level in range(max(piles) + 1):
        pile = piles.get(level, [])
        while pile:
            group = pile.pop()
            if not done[group] and cost[group] == level:
                return group
    raise AssertionError("a group that is not done is always in the pile of its cost")


def _cut(pairs: Pairs, capacity: int, pairs_per_step: int) -> list[slice]:
    """Consecutive slices of at most ``pairs_per_step`` pairs and ``capacity`` images."""
    slices: list[slice] = []
    start, images = 0, set[int]()
    for row, pair in enumerate(pairs.tolist()):
        n_new = len(set(pair) - images)
        if row - start == pairs_per_step or len(images) + n_new > capacity:
            slices.append(slice(start, row))
            start, images = row, set()
        images.update(pair)
    return [*slices, slice(start, len(pairs))] if len(pairs) else []
