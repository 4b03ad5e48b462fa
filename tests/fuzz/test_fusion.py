"""Fusion of two scores on random numbers, files and settings, beside the formula in NumPy and a search over all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.fuzzing import ODD_VALUES, Refusal, fuzz, result_or_refusal
from oml_vit_ext.reranking.fusion import Fusion, fit_fusion, fusion_of, save_fusion

WEIGHTS, TEMPERATURES = st.floats(0, 1), st.floats(0.01, 50)
QUERIES = st.lists(
    st.lists(st.tuples(st.floats(0, 4, width=32), st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=6),
    min_size=1,
    max_size=4,
)


def plainly(weight: float, temperature: float, distance: float, score: float) -> float:
    score = min(max(score, 1e-7), 1 - 1e-7)
    logit = temperature * math.log(score / (1 - score))
    of_pair = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    return weight * distance + (1 - weight) * of_pair


@fuzz(short=40, long=1_500)
@given(WEIGHTS, TEMPERATURES, QUERIES)
def test_the_formula(weight: float, temperature: float, queries: list[list[tuple[float, float, bool]]]):
    for query in queries:
        distances, scores = (torch.tensor([float(one[i]) for one in query]) for i in (0, 1))
        fused = Fusion(weight, temperature)(distances, scores)
        expected = [
            plainly(weight, temperature, d, s) for d, s in zip(distances.tolist(), scores.tolist(), strict=True)
        ]
        # Near 1 float32 has no more digits of a probability, of which a logit needs all.
        np.testing.assert_allclose(fused, expected, rtol=1e-4, atol=1e-4 + 2e-3 * min(1, temperature))


@fuzz(short=25, long=600)
@given(QUERIES, st.lists(WEIGHTS, max_size=3), st.lists(TEMPERATURES, min_size=1, max_size=3))
def test_the_best_is_found(
    queries: list[list[tuple[float, float, bool]]], weights: list[float], temperatures: list[float]
):
    queries = [sorted(query) for query in queries]
    columns = [[torch.tensor([one[i] for one in query]) for query in queries] for i in range(3)]
    found = fit_fusion(*columns, first_stage_weights=weights, temperatures=temperatures)

    def cmc1(fusion: Fusion) -> float:
        firsts = [bool(right[fusion(d, s).sort(stable=True).indices[0]]) for d, s, right in zip(*columns, strict=True)]
        return sum(firsts) / len(firsts)

    tried = [Fusion(w, t) for w in {*weights, 1.0} for t in temperatures]
    assert found.fusion in tried and math.isclose(found.cmc1, max(map(cmc1, tried)), abs_tol=1e-6)
    assert math.isclose(found.cmc1_first_stage, cmc1(Fusion(1.0)), abs_tol=1e-6)
    assert all(
        math.isclose(best, max(cmc1(f) for f in tried if f.first_stage_weight == w), abs_tol=1e-6)
        for w, best in found.curve.items()
    )


@fuzz(short=30, long=1_000)
@given(
    st.one_of(
        ODD_VALUES,
        st.dictionaries(st.sampled_from(["first_stage_weight", "temperature", "temprature"]), ODD_VALUES, max_size=3),
    )
)
def test_odd_settings(given_fusion: Any):
    made = result_or_refusal(lambda: fusion_of(given_fusion), FileNotFoundError)
    assert made is None or isinstance(made, (Refusal, Fusion))


@fuzz(short=25, long=600)
@given(st.data(), WEIGHTS, TEMPERATURES)
def test_damaged_files(tmp_path_factory: Any, data: Any, weight: float, temperature: float):
    file = Path(tmp_path_factory.getbasetemp()) / "fusion.json"
    save_fusion(Fusion(weight, temperature), file, {"queries": 3})
    assert fusion_of(file) == Fusion(weight, temperature)
    whole = file.read_bytes()
    kind = data.draw(st.integers(0, 2))
    if kind == 0:
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 2))])
    elif kind == 1:
        place = data.draw(st.integers(0, len(whole) - 1))
        file.write_bytes(whole[:place] + data.draw(st.binary(min_size=1, max_size=4)) + whole[place + 1 :])
    else:
        file.write_text(json.dumps(data.draw(st.one_of(st.lists(st.integers(), max_size=2), st.text(), st.none()))))
    made = result_or_refusal(lambda: fusion_of(file))
    assert isinstance(made, (Refusal, Fusion))
