"""OML's validation data sets say which queries nothing can be found for, so that a NaN has its reason."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
from oml.datasets.dataframe import DFQueryGalleryLabeledDataset
from oml.datasets.images import ImageQueryGalleryLabeledDataset

from helpers.toy_retrieval import Items, labelled
from oml_vit_ext.oml_patches.lonely_queries import warn_of_lonely_queries


def _frame(labels: list[int], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "is_query": True, "is_gallery": True, **columns})


def test_a_data_set_warns_of_them():
    df = _frame([1, 1, 2], path=["0.jpg", "1.jpg", "2.jpg"])
    with pytest.warns(UserWarning, match=r"1 query has no other gallery image of their label: 2.jpg. OML counts 0"):
        labelled(df)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labelled(df[:2])


def test_without_paths_the_rows_are_named_and_of_many_the_first():
    with pytest.warns(UserWarning, match=r"^5 queries have no .* label: 20; 30; 40; and 2 more\. "):
        labelled(_frame([1, 1, 2, 3, 4, 5, 6]).set_axis(range(0, 70, 10)))


def test_the_warning_points_to_the_line_that_made_a_data_set_of_images():
    with pytest.warns(UserWarning, match="no other gallery image") as caught:
        ImageQueryGalleryLabeledDataset(_frame([1], path=["0.jpg"]))
    assert [warning.filename for warning in caught] == [__file__]


def test_the_data_set_is_the_one_that_oml_makes_and_is_changed_once():
    before = DFQueryGalleryLabeledDataset.__init__
    warn_of_lonely_queries()
    assert DFQueryGalleryLabeledDataset.__init__ is before
    dataset = DFQueryGalleryLabeledDataset(Items(2), _frame([1, 1]), extra_data={"more": 3}, labels_key="ids")
    assert dataset.extra_data == {"more": 3} and dataset.labels_key == "ids"
    assert dataset.get_query_ids().tolist() == [0, 1]
