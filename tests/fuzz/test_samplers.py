"""Samplers on random layouts of labels and sizes, beside what they promise and a plain search for negatives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from helpers.plain_mining import embeddings, plainly
from oml_vit_ext.samplers import GroupSizeSampler, HardTuplesSampler, NearestPairsSampler

LABELS = st.lists(
    st.one_of(st.integers(0, 3), st.integers(0, 50), st.sampled_from([2**62, -(2**63), 2**63 - 1])),
    min_size=1,
    max_size=30,
)
SIZES = [(320, 160), (224, 224), (160, 320)]
SHAPES = [(640, 300), (200, 210), (90, 200), (1, 1)]


def folder(root: Path, labels: list[int], shapes: list[tuple[int, int]]) -> Path:
    """A data set without images: its dataframe tells their sizes."""
    frame = pd.DataFrame({"label": labels, "path": [f"{i}.png" for i in range(len(labels))], "split": "train"})
    frame["width"], frame["height"] = [w for w, _ in shapes], [h for _, h in shapes]
    frame.to_csv(root / "df.csv", index=False)
    return root


@fuzz(short=30, long=1_200)
@given(LABELS, st.data(), st.integers(2, 8), st.sampled_from([None, 1, 2, 3]), st.integers(0, 5))
def test_batches_of_one_group(
    tmp_path_factory: Any, labels: list[int], data: Any, batch_size: int, n_instances: int | None, seed: int
):
    shapes = [data.draw(st.sampled_from(SHAPES)) for _ in labels]
    root = folder(tmp_path_factory.mktemp("sizes"), labels, shapes)

    def make() -> GroupSizeSampler:
        return GroupSizeSampler(labels, root, batch_size, n_instances, sizes=SIZES, seed=seed, verbose=False)

    sampler = result_or_refusal(make)
    if isinstance(sampler, Refusal):
        return
    again = make()
    group = [1 if w == h or w == 200 else 0 if w > h else 2 for w, h in shapes]
    left = {row for row in range(len(labels)) if Counter(group)[group[row]] >= batch_size / 2}
    for _ in range(2):  # epochs
        batches = list(sampler)
        assert batches == list(again) and len(batches) == len(sampler) > 0
        for batch in batches:
            assert len(batch) == batch_size and set(batch) <= left and len({group[row] for row in batch}) == 1
            if n_instances is not None:
                assert all(count % n_instances == 0 for count in Counter(labels[row] for row in batch).values())
        shown = Counter(row for batch in batches for row in batch)
        if n_instances is None:
            assert set(shown) == left
            topped_up = sum(-Counter(group[row] for row in left)[g] % batch_size for g in set(group))
            assert sum(shown.values()) == len(left) + topped_up


@fuzz(short=30, long=1_200)
@given(LABELS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
def test_hard_tuples(labels: list[int], n_tuples: int, n_negatives: int, n_pairs: int, n_candidates: int, seed: int):
    sampler = result_or_refusal(
        lambda: HardTuplesSampler(labels, n_tuples, n_negatives, n_pairs, n_candidates, seed=seed)
    )
    if isinstance(sampler, Refusal):
        return
    rows = embeddings(len(labels), seed=seed)
    sampler.mine_with(lambda which: rows[which])
    draw = sampler.draw(0)
    batches = result_or_refusal(lambda: list(sampler))
    if isinstance(batches, Refusal):  # too few labels among the candidates
        assert len({labels[row] for row in draw.candidates}) < n_negatives + 1
        return
    assert len(batches) == len(sampler) == min(n_pairs, sum(Counter(labels)[x] > 1 for x in labels)) // n_tuples
    as_array = np.array(labels)
    for batch in batches:
        assert len(batch) == sampler.batch_size
        for anchor, positive, *negatives in np.array(batch).reshape(n_tuples, -1).tolist():
            assert anchor != positive and labels[anchor] == labels[positive]
            plain = plainly(rows[anchor], labels[anchor], rows[draw.candidates], as_array[draw.candidates], n_negatives)
            # Rows are random: no two similarities are equal.
            assert negatives == draw.candidates[plain].tolist()
    assert len({(t[0], t[1]) for b in batches for t in np.array(b).reshape(n_tuples, -1)}) == len(batches) * n_tuples


@fuzz(short=30, long=800)
@given(
    st.one_of(st.just([0, 0, 1, 1]), ODD_VALUES, st.lists(ODD_VALUES, min_size=1, max_size=3)),
    st.dictionaries(
        st.sampled_from(["n_tuples", "n_negatives", "n_pairs", "n_candidates", "pairs"]), ODD_VALUES, max_size=2
    ),
)
def test_odd_arguments_of_hard_tuples(labels: Any, args: dict[str, Any]):
    args = {"n_tuples": 1, "n_negatives": 1, **args}
    made = result_or_refusal(lambda: HardTuplesSampler(labels, **args), FileNotFoundError)
    assert isinstance(made, (Refusal, HardTuplesSampler))


@fuzz(short=30, long=800)
@given(
    st.one_of(st.just([0, 0, 1, 1]), ODD_VALUES, st.lists(ODD_VALUES, min_size=4, max_size=4)),
    st.dictionaries(st.sampled_from(["batch_size", "n_instances", "sizes", "seed"]), ODD_VALUES, max_size=2),
)
def test_odd_arguments_of_group_size(tmp_path_factory: Any, labels: Any, args: dict[str, Any]):
    root = folder(tmp_path_factory.mktemp("sizes"), [0, 0, 1, 1], [(200, 200)] * 4)
    args = {"batch_size": 2, "n_instances": 1, "verbose": False, **args}
    made = result_or_refusal(lambda: GroupSizeSampler(labels, root, **args), FileNotFoundError)
    if not isinstance(made, Refusal):
        assert len(list(made)) == len(made)


@fuzz(short=30, long=1_000)
@given(LABELS, st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_nearest_pairs(labels: list[int], n_anchors: int, nearest: int, seed: int):
    of_two = {label for label, count in Counter(labels).items() if count > 1}
    sampler = result_or_refusal(lambda: NearestPairsSampler(labels, n_anchors, nearest, seed))
    assert isinstance(sampler, Refusal) == (len(of_two) < 2 * n_anchors)
    if isinstance(sampler, Refusal):
        return
    rows = embeddings(len(labels), seed=seed)
    sampler.use_embeddings(rows)
    batches = list(sampler)
    assert len(batches) == len(sampler) == len(of_two) // n_anchors
    as_array = np.array(labels)
    for batch in batches:
        assert Counter(as_array[batch].tolist()) == dict.fromkeys(set(as_array[batch].tolist()), 2)
        assert len(set(batch)) == len(batch) == sampler.batch_size
        taken = set(as_array[batch[::4]].tolist())
        for anchor, _, rival, _ in np.array(batch).reshape(-1, 4).tolist():
            free = [row for row, label in enumerate(labels) if label in of_two - taken]
            free.sort(key=lambda row: float(np.linalg.norm(rows[anchor] - rows[row])))
            assert rival in free[:nearest]
            taken.add(labels[rival])
