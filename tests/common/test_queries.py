"""Queries that nothing can be found for are told, so that a NaN has its reason."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
from oml.interfaces.datasets import IBaseDataset

from oml_vit_ext.common.queries import lonely_queries


class _Items(IBaseDataset):
    input_tensors_key, index_key = "input_tensors", "idx"

    def __init__(self, n: int) -> None:
        self.n, self.extra_data = n, {}

    def __getitem__(self, item: int) -> dict:
        return {}

    def __len__(self) -> int:
        return self.n


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


def test_a_data_set_warns_of_them():
    df, _ = CASES["itself alone"]
    with pytest.warns(UserWarning, match=r"1 queries have no other gallery image of their label: 2.jpg. OML counts 0"):
        DFQueryGalleryLabeledDataset(_Items(3), df)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DFQueryGalleryLabeledDataset(_Items(2), df[:2])
