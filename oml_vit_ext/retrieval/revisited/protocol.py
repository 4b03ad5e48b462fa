"""The protocol of Revisited Oxford and Paris (Radenović et al., CVPR 2018, arXiv 1803.11285).

Each query knows its easy, hard and junk images. An image of another kind than the level asks for is neither right nor
wrong: it is taken out of the ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from oml_vit_ext.common.arrays import Ids, whole_numbers
from oml_vit_ext.common.checks import check_whole
from oml_vit_ext.common.messages import counted


class Level(NamedTuple):
    """The kinds of images that count as right, and those that are taken out of the ranking."""

    positives: tuple[str, ...]
    junk: tuple[str, ...]


LEVELS = {
    "easy": Level(positives=("easy",), junk=("junk", "hard")),
    "medium": Level(positives=("easy", "hard"), junk=("junk",)),
    "hard": Level(positives=("hard",), junk=("junk", "easy")),
}
KINDS = ("easy", "hard", "junk")
NOT_FOUND = -1

GroundTruth = Sequence[Mapping[str, Any]]  # per query: easy, hard, junk, each image numbers
Ranks = Sequence[Mapping[str, Ids]]  # the same, with the rank from 0 of each image, or NOT_FOUND


def evaluate_revisited(
    retrieved_ids: Sequence[ArrayLike], ground_truth: GroundTruth, kappas: Sequence[int] = (1, 5, 10)
) -> dict[str, dict[str, float]]:
    """mAP and mP@k at the levels easy, medium and hard, each a mean over the queries that have positives there.

    Args:
        retrieved_ids: For each query the database images in descending order of similarity: all of them, or the first
            ones. Positives that a shorter ranking lacks count as never found, so its figures are lower bounds.
        ground_truth: For each query a mapping with the image numbers ``easy``, ``hard`` and ``junk``, as in ``gnd`` of
            the official files; other keys are ignored.
        kappas: The k of mP@k.

    Returns:
        ``{"easy" | "medium" | "hard": {"map": ..., "mp@1": ..., ...}}`` between 0 and 1; NaN where no query has a
        positive.

    Raises:
        ValueError: There are not as many rankings as queries, a ranking holds an image twice, a key is missing, or an
            image is of two kinds.

    Example:
        One query; image 3 is junk and counts as not there.

        >>> ground_truth = [{"easy": [0, 1], "hard": [2], "junk": [3]}]
        >>> scores = evaluate_revisited([[3, 0, 4, 2, 1]], ground_truth, kappas=(1, 5))
        >>> {name: round(value, 3) for name, value in scores["medium"].items()}
        {'map': 0.764, 'mp@1': 1.0, 'mp@5': 0.75}
    """
    if len(retrieved_ids) != len(ground_truth):
        raise ValueError(
            f"Rankings are of {counted(len(retrieved_ids), 'query', 'queries')}, ground truth is for "
            f"{len(ground_truth)}: expected as many."
        )
    return scores_of_ranks(ranks_of(retrieved_ids, ground_truth), kappas)


def scores_of_ranks(ranks: Ranks, kappas: Sequence[int] = (1, 5, 10)) -> dict[str, dict[str, float]]:
    """:func:`evaluate_revisited` from the rank of each labelled image, which is all that the measures need."""
    for k in kappas:
        check_whole("A number in kappas", k, 1)
    return {
        level: {
            "map": _mean([average_precision(*part) for part in parts]),
            **{f"mp@{k}": _mean([precision_at(k, *part) for part in parts]) for k in kappas},
        }
        for level, parts in ((level, [at_level(of_query, level) for of_query in ranks]) for level in LEVELS)
    }


def ranks_of(retrieved_ids: Sequence[ArrayLike], ground_truth: GroundTruth) -> list[dict[str, Ids]]:
    """The rank from 0 of each labelled image of each query, ``NOT_FOUND`` where the ranking lacks it."""
    return [
        _ranks_of_one(whole_numbers(ids, f"The images in the ranking of query {query}").reshape(-1), images, query)
        for query, (ids, images) in enumerate(zip(retrieved_ids, labelled_images(ground_truth), strict=True))
    ]


def labelled_images(ground_truth: GroundTruth) -> list[dict[str, Ids]]:
    """The ground truth as arrays, without duplicates.

    Raises:
        ValueError: A key is missing, or an image is of two kinds.
    """
    found = []
    for query, given in enumerate(ground_truth):
        missing = [kind for kind in KINDS if kind not in given]
        if missing:
            raise ValueError(
                f"Query {query} of the ground truth has no {missing[0]!r} but {sorted(map(str, given))}: expected "
                f"easy, hard and junk, as in the revisited annotation."
            )
        images = {
            kind: np.unique(whole_numbers(given[kind], f"The images {kind!r} of query {query}").reshape(-1))
            for kind in KINDS
        }
        everything = np.concatenate(list(images.values()))
        values, counts = np.unique(everything, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"Query {query} of the ground truth has image {values[counts > 1][0]} under two of easy, hard and junk."
            )
        found.append(images)
    return found


def at_level(ranks: Mapping[str, Ids], level: str) -> tuple[Ids, int]:
    """Ranks of the positives that were found, ascending and counted without junk; and how many positives there are."""
    positives = np.concatenate([ranks[kind] for kind in LEVELS[level].positives])
    junk = np.concatenate([ranks[kind] for kind in LEVELS[level].junk])
    found = np.sort(positives[positives != NOT_FOUND])
    junk_before = np.searchsorted(np.sort(junk[junk != NOT_FOUND]), found)
    return found - junk_before, len(positives)


def average_precision(ranks: Ids, n_positives: int) -> float:
    """Area under the precision-recall curve by trapezoids; NaN without positives.

    At each found positive the precision before it and after it are averaged; before the first rank it is 1.

    Args:
        ranks: Ascending, from 0, junk not counted.
        n_positives: How many there are, found or not.
    """
    if n_positives == 0:
        return float("nan")
    nth = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, nth / np.maximum(ranks, 1))
    after = (nth + 1) / (ranks + 1)
    return float(((before + after) / 2).sum() / n_positives)


def precision_at(k: int, ranks: Ids, n_positives: int) -> float:
    """Share of positives among the first k images; NaN without positives.

    The official rule: k is cut to the position of the last positive, so that a query with fewer than k positives can
    reach 1. A positive that was never found has no position, and k stays.

    Args:
        k: How many images, at least 1.
        ranks, n_positives: As for :func:`average_precision`.
    """
    if n_positives == 0:
        return float("nan")
    if len(ranks) == n_positives:
        k = min(k, int(ranks.max()) + 1)
    return float((ranks < k).sum() / k)


def _ranks_of_one(ids: Ids, images: Mapping[str, Ids], query: int) -> dict[str, Ids]:
    order = np.argsort(ids, kind="stable")
    in_order = ids[order]
    if (in_order[1:] == in_order[:-1]).any():
        twice = in_order[1:][in_order[1:] == in_order[:-1]][0]
        raise ValueError(f"The ranking of query {query} holds image {twice} twice.")
    ranks = {}
    for kind, wanted in images.items():
        place = np.minimum(np.searchsorted(in_order, wanted), max(len(ids) - 1, 0))
        hit = in_order[place] == wanted if len(ids) else np.zeros(len(wanted), dtype=bool)
        ranks[kind] = np.where(hit, order[place] if len(ids) else NOT_FOUND, NOT_FOUND).astype(np.int64)
    return ranks


def _mean(values: Sequence[float]) -> float:
    """Over the queries that have positives."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
