"""The revisited protocol against hand-computed figures, a plain re-computation and its own properties."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from oml_vit_ext.retrieval import evaluate_revisited, load_revisited
from oml_vit_ext.retrieval.revisited.protocol import average_precision, precision_at


def plainly(ranking: list[int], positives: list[int], junk: list[int], kappas: tuple[int, ...]) -> dict | None:
    """One query at one level, in the words of the protocol."""
    if not positives:
        return None
    kept = [image for image in ranking if image not in junk]
    area, hits = 0.0, 0
    for place, image in enumerate(kept):
        if image in positives:
            before = 1.0 if place == 0 else hits / place
            hits += 1
            area += (before + hits / (place + 1)) / 2 / len(positives)
    scores = {"map": area}
    for k in kappas:
        last = max((kept.index(p) + 1 if p in kept else 10**9) for p in positives)
        first = kept[: min(k, last)]
        scores[f"mp@{k}"] = sum(image in positives for image in first) / min(k, last)
    return scores


def plainly_all(rankings: list, truth: list[dict], kappas: tuple[int, ...] = (1, 5, 10)) -> dict:
    result: dict = {}
    for level in ("easy", "medium", "hard"):
        of_queries = []
        for ranking, gnd in zip(rankings, truth, strict=True):
            easy, hard, junk = (list(gnd[kind]) for kind in ("easy", "hard", "junk"))
            positives, ignored = {
                "easy": (easy, junk + hard),
                "medium": (easy + hard, junk),
                "hard": (hard, junk + easy),
            }[level]
            scores = plainly(list(ranking), positives, ignored, kappas)
            if scores is not None:
                of_queries.append(scores)
        names = ["map", *(f"mp@{k}" for k in kappas)]
        result[level] = {n: (np.mean([s[n] for s in of_queries]) if of_queries else math.nan) for n in names}
    return result


def random_case(seed: int, n_images: int = 40, n_queries: int = 6) -> tuple[list[np.ndarray], list[dict]]:
    rng = np.random.default_rng(seed)
    truth = []
    for _ in range(n_queries):
        images = rng.permutation(n_images)
        ends = np.cumsum(rng.integers(0, 7, size=3))
        truth.append(dict(zip(("easy", "hard", "junk"), np.split(images, ends)[:3], strict=True)))
    return [rng.permutation(n_images) for _ in range(n_queries)], truth


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys() == {"easy", "medium", "hard"}
    for level in left:
        assert left[level] == pytest.approx(right[level], nan_ok=True)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_protocol_in_plain_words(seed: int):
    rankings, truth = random_case(seed)
    assert_same(evaluate_revisited(rankings, truth), plainly_all(rankings, truth))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length", [0, 1, 5, 20])
def test_a_shorter_ranking_counts_the_rest_as_never_found(seed: int, length: int):
    rankings, truth = random_case(seed)
    short = [ranking[:length] for ranking in rankings]
    assert_same(evaluate_revisited(short, truth), plainly_all(short, truth))
    whole = evaluate_revisited(rankings, truth)
    for level, scores in evaluate_revisited(short, truth).items():
        for name, value in scores.items():
            assert math.isnan(value) or value <= whole[level][name] + 1e-12


def test_a_query_by_hand():
    # Easy: 0 and 1; hard: 2; junk: 3. Ranking: 3 0 4 2 1.
    result = evaluate_revisited([[3, 0, 4, 2, 1]], [{"easy": [0, 1], "hard": [2], "junk": [3]}], kappas=(1, 2, 10))
    # Easy: 0 4 1, so precision 1, 1 | 1/2, 2/3; the last positive is third.
    assert result["easy"]["map"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert [result["easy"][f"mp@{k}"] for k in (1, 2, 10)] == pytest.approx([1, 1 / 2, 2 / 3])
    # Medium: 0 4 2 1.
    assert result["medium"]["map"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    assert result["medium"]["mp@10"] == pytest.approx(3 / 4)
    # Hard: 4 2.
    assert result["hard"]["map"] == pytest.approx((0 + 1 / 2) / 2)
    assert [result["hard"][f"mp@{k}"] for k in (1, 2, 10)] == pytest.approx([0, 1 / 2, 1 / 2])


def test_queries_without_positives_are_left_out():
    truth = [{"easy": [0], "hard": [], "junk": []}, {"easy": [], "hard": [1], "junk": [0]}]
    result = evaluate_revisited([[0, 1], [0, 1]], truth)
    assert result["easy"]["map"] == 1 and result["hard"]["map"] == 1
    only_easy = evaluate_revisited([[0, 1]], truth[:1])
    assert all(math.isnan(value) for value in only_easy["hard"].values())
    assert only_easy["medium"]["map"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_where_junk_stands_changes_nothing(seed: int):
    rankings, truth = random_case(seed)
    moved = []
    for ranking, gnd in zip(rankings, truth, strict=True):
        is_junk = np.isin(ranking, gnd["junk"])
        moved.append(np.concatenate([ranking[is_junk], ranking[~is_junk]]))
    assert_same(evaluate_revisited(moved, truth), evaluate_revisited(rankings, truth))


@pytest.mark.parametrize("seed", range(4))
def test_a_perfect_ranking_scores_one(seed: int):
    _, truth = random_case(seed)
    kinds = ("easy", "hard", "junk")
    rankings = []
    for gnd in truth:
        labelled = np.concatenate([gnd[kind] for kind in kinds])
        rankings.append(np.concatenate([labelled, np.setdiff1d(np.arange(40), labelled)]))
    for scores in evaluate_revisited(rankings, truth).values():
        assert all(value == pytest.approx(1) for value in scores.values())


def test_moving_a_positive_up_never_hurts():
    rankings, truth = random_case(1)
    before = evaluate_revisited(rankings, truth)["medium"]["map"]
    better = []
    for ranking, gnd in zip(rankings, truth, strict=True):
        image = np.concatenate([gnd["easy"], gnd["hard"]])[0]
        better.append(np.concatenate([[image], ranking[ranking != image]]))
    assert evaluate_revisited(better, truth)["medium"]["map"] > before


def test_tensors_lists_and_arrays_mean_the_same():
    rankings, truth = random_case(2)
    as_lists = [{**{k: v.tolist() for k, v in gnd.items()}, "bbx": [0, 0, 1, 1]} for gnd in truth]
    assert_same(evaluate_revisited([torch.tensor(r) for r in rankings], as_lists), evaluate_revisited(rankings, truth))


def test_no_positive_no_score():
    assert math.isnan(average_precision(np.array([], dtype=int), 0)) and math.isnan(
        precision_at(5, np.array([], dtype=int), 0)
    )


@pytest.mark.parametrize(
    ("rankings", "truth", "message"),
    [
        ([[0]], [], "Rankings are of 1 query, ground truth is for 0"),
        ([[0, 1, 0]], [{"easy": [0], "hard": [], "junk": []}], "query 0 holds image 0 twice"),
        ([[0]], [{"easy": [0], "hard": []}], "no 'junk'"),
        ([[0]], [{"easy": [0], "hard": [0], "junk": []}], "image 0 under two"),
    ],
)
def test_bad_input_is_named(rankings: list, truth: list, message: str):
    with pytest.raises(ValueError, match=message):
        evaluate_revisited(rankings, truth)


def test_kappas_are_positive():
    with pytest.raises(ValueError, match="kappas"):
        evaluate_revisited([[0]], [{"easy": [0], "hard": [], "junk": []}], kappas=(0,))


TRUTH = [{"easy": [0, 1], "hard": [2], "junk": [3]}]


@pytest.mark.parametrize(
    "ranking", [[1.7, 0.0], [0.9], [float("nan"), 1.0], [True, False, True, True], np.ones(4, bool)]
)
def test_rankings_of_something_else_than_ids_are_refused(ranking) -> None:
    with pytest.raises(ValueError, match=r"in the ranking of query 0 are .*, expected whole numbers"):
        evaluate_revisited([ranking], TRUTH)


@pytest.mark.parametrize("ids", [[1.7], [float("nan")], [True, False], None, "text"])
def test_ground_truth_of_something_else_than_ids_is_refused(ids) -> None:
    with pytest.raises(ValueError, match=r"The images 'hard' of query 0 are .*, expected whole numbers"):
        evaluate_revisited([[0, 1]], [{**TRUTH[0], "hard": ids}])


@pytest.mark.parametrize("kappas", [(2.5,), (0,), (True,), (1, float("nan"))])
def test_kappas_are_whole(kappas) -> None:
    with pytest.raises(ValueError, match=r"kappas is .*, expected a whole number of at least 1"):
        evaluate_revisited([[0, 1]], TRUTH, kappas)


@pytest.mark.skipif("OML_VIT_EXT_DATA" not in os.environ, reason="OML_VIT_EXT_DATA names no folder with revisited")
@pytest.mark.parametrize(("name", "n_database"), [("roxford5k", 4_993), ("rparis6k", 6_322)])
def test_the_official_ground_truth(name: str, n_database: int, tmp_path: Path):
    """The annotation as it was published: its counts, the best ranking, and rankings at random against plain loops."""
    folder = Path(os.environ["OML_VIT_EXT_DATA"]) / "data/revisited"
    data = load_revisited(folder, name)
    assert len(data.query_paths) == 70 and len(data.database_paths) == n_database
    best = [np.concatenate([g["easy"], g["hard"]]).astype(int) for g in data.ground_truth]
    scores = evaluate_revisited(best, data.ground_truth)
    assert all(score == pytest.approx(1) for level in scores.values() for score in level.values())
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(n_database) for _ in data.ground_truth]
    some = slice(0, 70, 10)  # the loops take their time
    found, expected = (f(rankings[some], data.ground_truth[some]) for f in (evaluate_revisited, plainly_all))
    for level, of_level in expected.items():
        assert found[level] == pytest.approx(of_level, abs=1e-12)
