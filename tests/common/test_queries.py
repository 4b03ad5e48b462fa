"""Which queries nothing can be found for."""

from __future__ import annotations

import pandas as pd
import pytest

from oml_vit_ext.common.queries import lonely_queries


def _frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(columns["label"]))], **columns})


CASES = {
    "itself alone": (_frame(label=[1, 1, 2], is_query=True, is_gallery=True), [2]),
    "not in the gallery": (_frame(label=[1, 1, 1], is_query=[True] * 3, is_gallery=[False] * 3), [0, 1, 2]),
    "one of them in the gallery": (_frame(label=[1, 1], is_query=True, is_gallery=[True, False]), [0]),
    "no query": (_frame(label=[1, 2], is_query=False, is_gallery=True), []),
    "its own sequence": (_frame(label=[1, 1, 1], is_query=True, is_gallery=True, sequence=["a", "a", "b"]), []),
    "its own sequence alone": (_frame(label=[1, 1], is_query=True, is_gallery=True, sequence=["a", "a"]), [0, 1]),
    "no sequence": (_frame(label=[1, 1, 2], is_query=True, is_gallery=True, sequence=["a", None, None]), [2]),
}


@pytest.mark.parametrize("case", CASES)
def test_lonely_queries(case: str):
    df, expected = CASES[case]
    assert [i for i, lonely in enumerate(lonely_queries(df)) if lonely] == expected
