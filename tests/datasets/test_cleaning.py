"""What is wrong with rows, and what is done about it, on frames without files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from oml_vit_ext.datasets.cleaning import (
    cleaned,
    shared_labels,
    with_sizes,
    with_whole_boxes,
    without_lonely_queries,
    without_single_labels,
    without_single_questions,
)
from oml_vit_ext.datasets.listing import Counts, Listing, make_frame
from oml_vit_ext.images.sizes import Size


def _frame(labels: list[int], is_train: object = True, **columns):
    return make_frame(labels, [f"{i}.jpg" for i in range(len(labels))], is_train, **columns)


def test_images_without_a_size_are_left_out_with_the_reason():
    frame, left_out = with_sizes(_frame([1, 1, 2]), [Size(4, 3, False), "missing", Size(5, 6, True)])
    assert frame.path.tolist() == ["0.jpg", "2.jpg"] and left_out == ["1.jpg: missing"]
    assert frame[["width", "height", "turned"]].to_numpy().tolist() == [[4, 3, False], [5, 6, True]]


def test_empty_boxes_are_left_out():
    boxes = {"x_1": [0, 9], "x_2": [3, 12], "y_1": [0, 0], "y_2": [3, 3]}
    frame, left_out = with_sizes(_frame([1, 1], **boxes), [Size(8, 8, False)] * 2)
    assert frame.path.tolist() == ["0.jpg"] and left_out == ["1.jpg: its box is empty or outside of the image"]


def test_boxes_are_cut_and_made_whole():
    boxes = {"x_1": [-2, np.nan], "x_2": [99, np.nan], "y_1": [1, np.nan], "y_2": [2, np.nan], "width": 8, "height": 6}
    found = with_whole_boxes(_frame([1, 1], **boxes))[["x_1", "x_2", "y_1", "y_2"]]
    assert found.to_numpy().tolist() == [[0, 8, 1, 2], [0, 8, 0, 6]]


def test_single_labels_of_training_go_and_those_of_validation_stay():
    frame = without_single_labels(_frame([1, 1, 2, 3], [True, True, True, False]))
    assert frame.label.tolist() == [1, 1, 3]


def test_queries_without_a_gallery_go():
    flags = {"is_query": [True, False, True], "is_gallery": [False, True, False]}
    frame, n_lonely = without_lonely_queries(_frame([1, 1, 2], False, **flags))
    assert frame.label.tolist() == [1, 1] and n_lonely == 1


def test_the_only_gallery_image_of_a_label_is_no_query():
    frame, not_asked = without_single_questions(_frame([1, 1, 2], False))
    assert frame.is_query.tolist() == [True, True, False] and frame.is_gallery.all() and not_asked == ["2.jpg"]
    flags = {"is_query": [True, True, True], "is_gallery": [True, False, False]}
    frame, not_asked = without_single_questions(_frame([1, 1, 1], False, **flags))
    assert frame.is_query.tolist() == [False, True, True] and not_asked == ["0.jpg"]


def test_labels_on_both_sides():
    assert shared_labels(_frame([1, 2, 2, 1, 3], [True, True, False, False, False])) == [1, 2]
    assert shared_labels(_frame([1, 2], True)) == []


def test_nothing_left_is_an_error(tmp_path: Path):
    listing = Listing(tmp_path, _frame([1, 2]), Counts(), tmp_path / "list.txt")
    with pytest.raises(ValueError, match=r"None of the 2 images of birds .* can be read: 0.jpg: missing; 1.jpg: bad"):
        cleaned("birds", listing, ["missing", "bad"], drop_single=False)
