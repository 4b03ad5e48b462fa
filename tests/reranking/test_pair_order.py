"""Order of pairs and plan of loads: never more images than allowed, every pair ready, few images loaded twice."""

from __future__ import annotations

import numpy as np
import pytest

from oml_vit_ext.reranking.pair_order import Pairs, order_for_reuse, plan_steps


def pairs_of_clusters(n_clusters: int, size: int, top_n: int, seed: int = 0) -> Pairs:
    """Every image is a query; its candidates come mostly from its own cluster; ids and queries are shuffled."""
    rng = np.random.default_rng(seed)
    n = n_clusters * size
    names = rng.permutation(n)
    pairs = []
    for query in rng.permutation(n).tolist():
        own = [i for i in range(query // size * size, query // size * size + size) if i != query]
        others = rng.choice(n, 1)
        candidates = [*rng.permutation(own)[: top_n - 1], *(o for o in others if o != query and o not in own)]
        pairs += [(names[query], names[c]) for c in candidates]
    return np.array(pairs, dtype=np.int64)


def loads(pairs: Pairs, capacity: int, per_step: int = 16, held: set[int] | None = None) -> int:
    """Follow a plan with a plain set, and count what is loaded."""
    cached, compared, n_loads = set(held or ()), [], 0
    for step in plan_steps(pairs, capacity, per_step, held):
        cached -= set(step.drop)
        assert not cached & set(step.load)
        cached |= set(step.load)
        n_loads += len(step.load)
        assert len(cached) <= capacity
        assert set(pairs[step.pairs].ravel().tolist()) <= cached
        compared += list(range(step.pairs.start, step.pairs.stop))
        assert step.pairs.stop - step.pairs.start <= per_step
    assert compared == list(range(len(pairs)))
    return n_loads


@pytest.mark.parametrize("capacity", [2, 3, 7, 40, 10_000])
def test_a_plan_can_be_followed(capacity: int):
    pairs = pairs_of_clusters(12, 5, 4)
    order = order_for_reuse(pairs, capacity)
    assert sorted(order.tolist()) == list(range(len(pairs)))
    n_loads = loads(pairs[order], capacity)
    assert n_loads >= len(np.unique(pairs))
    if capacity >= len(np.unique(pairs)):
        assert n_loads == len(np.unique(pairs))


def test_an_image_that_is_held_is_not_loaded():
    pairs = pairs_of_clusters(4, 5, 4)
    assert loads(pairs, 100, held={int(pairs[0, 0])}) == len(np.unique(pairs)) - 1
    assert loads(pairs, 4, held={10_000}) >= len(np.unique(pairs))  # one that nobody needs makes room


def test_with_a_tenth_of_the_images_in_memory_few_are_loaded_twice():
    pairs = pairs_of_clusters(120, 5, 5)
    distinct, capacity = len(np.unique(pairs)), 60
    as_given, ordered = loads(pairs, capacity), loads(pairs[order_for_reuse(pairs, capacity)], capacity)
    assert as_given > 2.5 * distinct
    assert ordered < 1.7 * distinct


def test_clusters_without_strangers_are_loaded_once():
    pairs = pairs_of_clusters(50, 4, 4)
    pairs = pairs[[a // 4 == b // 4 for a, b in np.argsort(np.random.default_rng(0).permutation(200))[pairs]]]
    distinct = len(np.unique(pairs))
    assert loads(pairs[order_for_reuse(pairs, 8)], 8, per_step=4) == distinct


def test_least_loads_for_a_known_order():
    # Belady on a, b | c, a | b, a with room for three: nothing comes twice. With room for two, b does.
    pairs = np.array([(0, 1), (2, 0), (1, 0)])
    assert loads(pairs, 3, per_step=1) == 3
    assert loads(pairs, 2, per_step=1) == 4


def test_nothing_to_do():
    empty = np.zeros((0, 2), dtype=np.int64)
    assert plan_steps(empty, 2, 4) == [] and order_for_reuse(empty, 2).shape == (0,)
